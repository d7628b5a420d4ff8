/// The two ends of a transfer, in Python: what arrives is compared with what was sent, so that wrong checksums and lost
/// or doubled octets show.
enum EngineTraffic {
    /// Echoes TCP streams and UDP datagrams on port 7 until it is killed, a train of these (UDP_GRO) as a train (UDP_SEGMENT);
    /// prints a line when it listens.
    static let server = """
        import socket, struct, threading
        def tcp(connection):
            while data := connection.recv(1 << 20):
                connection.sendall(data)
            connection.close()
        def udp(endpoint):
            while True:
                data, ancillary, _, peer = endpoint.recvmsg(65536, 64)
                size = next((struct.unpack("i", value[:4])[0] for _, kind, value in ancillary if kind == 104), len(data))
                try:
                    endpoint.sendmsg([data], [(socket.SOL_UDP, 103, struct.pack("H", size))] if size < len(data) else [], 0, peer)
                except OSError:  # as below
                    for start in range(0, len(data), size):
                        endpoint.sendto(data[start:start + size], peer)
        endpoint = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        endpoint.setsockopt(41, 26, 1)
        endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        endpoint.setsockopt(socket.SOL_UDP, 104, 1)
        endpoint.bind(("ADDRESS", 7))
        threading.Thread(target=udp, args=(endpoint,), daemon=True).start()
        listener = socket.create_server(("ADDRESS", 7), family=socket.AF_INET6)
        print("listening", flush=True)
        while True:
            threading.Thread(target=tcp, args=(listener.accept()[0],), daemon=True).start()
        """

    /// Sends OCTETS octets both ways by TCP.
    static let stream = """
        import os, socket, threading
        data = os.urandom(1 << 16) * (OCTETS >> 16)
        connection = socket.create_connection(("ADDRESS", 7), timeout=50)
        def send():
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
        threading.Thread(target=send).start()
        back = bytearray()
        while part := connection.recv(1 << 20):
            back += part
        assert back == data, f"{len(back)} octets of {len(data)}, or others"
        """

    /// Sends datagrams both ways: small, odd, full, and a train cut by the kernel (UDP_SEGMENT).
    static let datagrams = """
        import os, socket
        endpoint = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        endpoint.settimeout(20)
        endpoint.connect(("ADDRESS", 7))
        for size in (0, 1, 3, 64, 513, 1231, 1232, 1233, 1452):
            data = os.urandom(size)
            endpoint.send(data)
            assert endpoint.recv(65536) == data, size
        train = [os.urandom(1400) for _ in range(10)]
        try:
            endpoint.setsockopt(socket.SOL_UDP, 103, 1400)
            endpoint.send(b"".join(train))
        except OSError:  # before Linux 6.11 only devices that make checksums take one
            endpoint.setsockopt(socket.SOL_UDP, 103, 0)
            for data in train:
                endpoint.send(data)
        assert [endpoint.recv(65536) for _ in train] == train, "train"
        """

    /// Sends datagrams both ways that have no checksum when they leave: one whole, one in fragments.
    static let unchecked = """
        import os, socket
        endpoint = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        endpoint.setsockopt(socket.SOL_SOCKET, 11, 1)
        endpoint.settimeout(20)
        endpoint.connect(("ADDRESS", 7))
        for size in (100, 4000):
            data = os.urandom(size)
            endpoint.send(data)
            assert endpoint.recv(65536) == data, size
        """

    /// Echoes what comes as that protocol, of which it sees the payload, until it is killed; prints a line when it listens.
    static let otherServer = """
        import socket
        endpoint = socket.socket(socket.AF_INET6, socket.SOCK_RAW, PROTOCOL)
        endpoint.bind(("ADDRESS", 0))
        print("listening", flush=True)
        while True:
            data, peer = endpoint.recvfrom(65536)
            endpoint.sendto(data, (peer[0], 0))
        """

    /// Sends that protocol both ways: small, and in fragments.
    static let other = """
        import os, socket
        endpoint = socket.socket(socket.AF_INET, socket.SOCK_RAW, PROTOCOL)
        endpoint.settimeout(20)
        endpoint.connect(("ADDRESS", 0))
        for size in (12, 1400, 4000):
            data = os.urandom(size)
            endpoint.send(data)
            assert endpoint.recv(65536)[20:] == data, size
        """

    /// Echoes UDP-Lite on port 7 until it is killed; prints a line when it listens.
    static let liteServer = """
        import socket
        endpoint = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM, 136)
        endpoint.bind(("ADDRESS", 7))
        print("listening", flush=True)
        while True:
            data, peer = endpoint.recvfrom(65536)
            endpoint.sendto(data, peer)
        """

    /// Sends UDP-Lite both ways, with all of it checksummed and with the header only.
    static let lite = """
        import os, socket
        for coverage in (0, 8):
            endpoint = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 136)
            endpoint.setsockopt(136, 10, coverage)
            endpoint.settimeout(20)
            endpoint.connect(("ADDRESS", 7))
            for size in (0, 101, 1400):
                data = os.urandom(size)
                endpoint.send(data)
                assert endpoint.recv(65536) == data, (coverage, size)
        """

    /// Sends a datagram to a CLAT address from outside PREF64, and reads the refusal.
    static let outsider = """
        import errno, socket
        endpoint = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        endpoint.setsockopt(41, 25, 1)
        endpoint.settimeout(20)
        endpoint.bind(("SOURCE", 0))
        endpoint.connect(("ADDRESS", 9))
        endpoint.send(b"x")
        try:
            endpoint.recv(1)
            print("answered")
        except OSError as error:
            print(errno.errorcode.get(error.errno, error))
        """
}
