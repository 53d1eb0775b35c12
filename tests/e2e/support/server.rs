//! A server in the test's own process.

use std::net::SocketAddr;

use plugd_server::{Config, Control, ListenAddress, Origin, Registry, Server};
use tokio::task::JoinHandle;

use super::soon;

/// The plugins that most tests need.
pub(crate) const PLUGINS: &str = "[plugins.demo]\n[plugins.echo]\n[plugins.upper]\n";

/// A running server, stopped when the test ends.
pub(crate) struct TestServer {
    pub(crate) address: SocketAddr,
    pub(crate) control: Control,
    task: JoinHandle<()>,
}

impl TestServer {
    /// Serves `plugins` on a free port of loopback.
    pub(crate) async fn start(plugins: &str) -> TestServer {
        TestServer::start_with("", plugins).await
    }

    /// Serves `plugins`, with more settings of the server itself.
    pub(crate) async fn start_with(settings: &str, plugins: &str) -> TestServer {
        let text = format!("[server]\nlisten = [\"tcp://127.0.0.1:0\"]\n{settings}\n{plugins}");
        let registry = Registry::linked().expect("handlers that fit together");
        let config = Config::parse(&Origin::text(text), &registry, &[]).expect("a good configuration");
        let server = Server::bind(config, registry).await.expect("a free port");
        let ListenAddress::Tcp { host, port } = server.addresses()[0].clone() else { panic!("a TCP address") };
        let address = SocketAddr::new(host.parse().expect("an IP address"), port);
        TestServer { address, control: server.control(), task: tokio::spawn(server.run()) }
    }

    /// Waits until the server has stopped by itself.
    pub(crate) async fn stopped(mut self) {
        soon("end of the server", &mut self.task).await.expect("a server that does not panic");
    }
}

impl TestServer {
    /// Waits until the server has stopped, however long that takes.
    pub(crate) async fn ended(mut self) {
        (&mut self.task).await.expect("a server that does not panic");
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}
