import ClatBase
import Glibc
import Testing

@Suite("What the kernel gives")
struct SystemTests {
    @Test("a descriptor is closed at the end of its owner's life, and not when it was given away")
    func descriptors() throws {
        let number: CInt
        do {
            let owner = try OwnedDescriptor(opening: "/dev/null", O_RDONLY)
            number = owner.rawValue
            #expect(fcntl(number, F_GETFD) == FD_CLOEXEC)
        }
        #expect(fcntl(number, F_GETFD) == -1)
        let kept = try OwnedDescriptor(opening: "/dev/null", O_RDONLY).release()
        #expect(fcntl(kept, F_GETFD) != -1)
        close(kept)
    }

    @Test("an error names the call, its object and the reason")
    func errors() {
        #expect(throws: SystemError(call: "open /nonexistent", code: ENOENT)) {
            _ = try OwnedDescriptor(opening: "/nonexistent", O_RDONLY)
        }
        #expect(
            SystemError(call: "open /nonexistent", code: ENOENT).description
                == "open /nonexistent: No such file or directory")
    }

    @Test("a call that is interrupted is made again, one that fails is not")
    func retries() throws {
        var left = 3
        let result = try retrying("test") { () -> CInt in
            errno = EINTR
            left -= 1
            return left == 0 ? 7 : -1
        }
        #expect(result == 7)
        var calls = 0
        #expect(throws: SystemError(call: "test", code: EIO)) {
            try retrying("test") { () -> CInt in
                calls += 1
                errno = EIO
                return -1
            }
        }
        #expect(calls == 1)
    }

    @Test("a thread of one's own has its own kernel state and hands back its result")
    func threads() throws {
        let own = gettid()
        #expect(try onDedicatedThread(name: "test") { () throws(SystemError) in gettid() } != own)
        #expect(throws: SystemError(call: "test", code: EPERM)) {
            try onDedicatedThread(name: "test") { () throws(SystemError) -> Int in
                throw SystemError(call: "test", code: EPERM)
            }
        }
    }

    @Test("a descriptor that is paused is left alone for so long, and the deadline comes in between")
    func pauses() throws {
        var ends: [CInt] = [-1, -1]
        try retrying("pipe") { pipe(&ends) }
        let readable = OwnedDescriptor(adopting: ends[0])
        let writable = OwnedDescriptor(adopting: ends[1])
        try writeAll([0], to: writable.rawValue, "write")
        let (reactor, descriptor) = (try Reactor(), readable.rawValue)
        var calls: [BootInstant] = []
        var deadlines = 0
        try reactor.watch(descriptor, .read) { [unowned reactor] in
            calls.append(.now)
            reactor.pause(descriptor, for: .milliseconds(50))
        }
        reactor.onDeadline = { [unowned reactor] in
            deadlines += 1
            if deadlines == 2 { reactor.stop() } else { reactor.wake(at: .now + .milliseconds(300)) }
        }
        reactor.wake(at: .now + .milliseconds(20))
        try reactor.run()
        #expect(calls.count >= 3)
        for (earlier, later) in zip(calls, calls.dropFirst()) { #expect(later - earlier >= .milliseconds(50)) }
    }

    @Test("the clock counts nanoseconds and does sums with durations")
    func clock() {
        let start = BootInstant.now
        #expect(BootInstant.now >= start)
        #expect((start + .milliseconds(1500)) - start == .milliseconds(1500))
        #expect(start + .seconds(1) > start)
    }
}
