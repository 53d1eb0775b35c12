//! One call that streams.

use std::future::Future;
use std::pin::pin;

use bytes::Bytes;
use plugd_core::Data;
use plugd_core::wire::End;
use serde_json::{Map, Value};

use crate::{ClientError, Receiver, Reply, Sender};

/// One call on a [`Client`](crate::Client), with both directions open.
///
/// Sending waits when the server does not keep up, and the server stops keeping up when its answers are not received:
/// a call that moves much both ways needs [`split`](Exchange::split) and both halves at work at the same time.
///
/// # Cancellation
///
/// Dropping an exchange before its end leaves the call running until the next one is opened, which cancels it, or the
/// client is dropped; [`cancel`](Exchange::cancel) tells the server at once.
#[derive(Debug)]
pub struct Exchange<'c> {
    sender: &'c mut Sender,
    receiver: &'c mut Receiver,
}

impl<'c> Exchange<'c> {
    pub(crate) fn new(sender: &'c mut Sender, receiver: &'c mut Receiver) -> Exchange<'c> {
        Exchange { sender, receiver }
    }

    /// Lends both directions apart, to be used at the same time.
    pub fn split(&mut self) -> (&mut Sender, &mut Receiver) {
        (self.sender, self.receiver)
    }

    /// Sends bytes on the main channel as one message; see [`Sender::send`].
    ///
    /// # Errors
    ///
    /// As [`Sender::send`].
    pub async fn send(&mut self, payload: impl Into<Bytes>) -> Result<(), ClientError> {
        self.sender.send(payload).await
    }

    /// Sends bytes on a side channel as one message; see [`Sender::send_on`].
    ///
    /// # Errors
    ///
    /// As [`Sender::send`].
    pub async fn send_on(&mut self, channel: u8, payload: impl Into<Bytes>) -> Result<(), ClientError> {
        self.sender.send_on(channel, payload).await
    }

    /// Sends one piece of data as it is; see [`Sender::send_data`].
    ///
    /// # Errors
    ///
    /// As [`Sender::send`].
    pub async fn send_data(&mut self, data: Data) -> Result<(), ClientError> {
        self.sender.send_data(data).await
    }

    /// Says that the call gets no more input; see [`Sender::finish`].
    ///
    /// # Errors
    ///
    /// As [`Sender::finish`].
    pub async fn finish(&mut self) -> Result<(), ClientError> {
        self.sender.finish().await
    }

    /// Gives the call up; see [`Sender::cancel`]. Its end still comes.
    ///
    /// # Errors
    ///
    /// As [`Sender::cancel`].
    pub async fn cancel(&mut self) -> Result<(), ClientError> {
        self.sender.cancel().await
    }

    /// Waits for the handler's own header; see [`Receiver::head`].
    ///
    /// # Errors
    ///
    /// As [`Receiver::head`].
    pub async fn head(&mut self) -> Result<Option<&Map<String, Value>>, ClientError> {
        beside(self.sender.flush(), self.receiver.head()).await
    }

    /// Receives the next piece of data, or `None` when the call has ended; see [`Receiver::recv`].
    ///
    /// # Errors
    ///
    /// As [`Receiver::head`].
    pub async fn recv(&mut self) -> Result<Option<Data>, ClientError> {
        beside(self.sender.flush(), self.receiver.recv()).await
    }

    /// Receives the end of the call and leaves the connection ready for the next one.
    ///
    /// # Errors
    ///
    /// As [`Receiver::head`].
    pub async fn end(self) -> Result<End, ClientError> {
        let end = beside(self.sender.flush(), self.receiver.end()).await?;
        // The call has its end; if telling the server so fails, the next call meets the broken connection.
        let _ = self.sender.settle().await;
        Ok(end)
    }

    /// Sends `payload` as the whole input and receives the whole answer.
    pub(crate) async fn whole(self, payload: Bytes, len_max: usize) -> Result<Reply, ClientError> {
        let Exchange { sender, receiver } = self;
        let send = async {
            if !payload.is_empty() {
                sender.feed(Data::main(payload)).await?;
            }
            sender.finish().await
        };
        let reply = beside(send, receiver.reply(len_max)).await?;
        let _ = sender.settle().await;
        Ok(reply)
    }
}

/// Receives while sending goes on. How sending ends does not matter: the end of the call, or its loss, is received.
async fn beside<T>(send: impl Future<Output = Result<(), ClientError>>, receive: impl Future<Output = T>) -> T {
    let (mut send, mut receive) = (pin!(send), pin!(receive));
    tokio::select! {
        biased;
        _ = &mut send => receive.await,
        received = &mut receive => received,
    }
}
