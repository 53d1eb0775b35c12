"""The echo that Python's own library makes easy: a thread for each connection, four bytes of length before a message."""

import socketserver


class Echo(socketserver.StreamRequestHandler):
    disable_nagle_algorithm = True

    def handle(self):
        while header := self.rfile.read(4):
            self.wfile.write(header + self.rfile.read(int.from_bytes(header, "big")))


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 1024


with Server(("127.0.0.1", 0), Echo) as server:
    print("python listening on {}:{}".format(*server.server_address), flush=True)
    server.serve_forever()
