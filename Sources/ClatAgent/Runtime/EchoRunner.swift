import CLinux
import ClatBase
import Glibc

/// Sends echo requests through CLATs, each on a thread of its own that lives for a second at most.
final class EchoRunner {
    private final class Job {
        var thread: ClatBase.Thread<Echo.Outcome>?
        let finished: OwnedDescriptor

        init() throws(SystemError) {
            finished = OwnedDescriptor(adopting: try retrying("eventfd") { eventfd(0, CInt(EFD_CLOEXEC)) })
        }

        func start(_ address: IPv4Address, by interface: String) throws(SystemError) {
            let descriptor = finished.rawValue
            thread = try ClatBase.Thread(name: "echo") {
                let outcome = Self.ask(address, by: interface)
                eventfd_write(descriptor, 1)
                return outcome
            }
        }

        private static func ask(_ address: IPv4Address, by interface: String) -> Echo.Outcome {
            do throws(SystemError) {
                var echo = try Echo.ipv4(by: interface)
                return echo.ask(address, size: 84)
            } catch {
                return .unsent(error)
            }
        }

        func outcome() -> Echo.Outcome? { thread.take()?.join() }
    }

    private let reactor: Reactor
    private var jobs: [Int: Job] = [:]

    init(reactor: Reactor) {
        self.reactor = reactor
    }

    deinit {
        for job in jobs.values {
            reactor.forget(job.finished.rawValue)
            _ = job.outcome()
        }
    }

    /// Asks an IPv4 address out of a device, and says what came of it. `key` is whom it is for: one at a time.
    func ask(
        _ address: IPv4Address, by interface: String, for key: Int, _ done: @escaping (PathWatch.Echo) -> Void
    ) throws(SystemError) {
        guard jobs[key] == nil else { return }
        let job = try Job()
        try reactor.watch(job.finished.rawValue, .read) { [unowned self] in
            reactor.forget(job.finished.rawValue)
            jobs[key] = nil
            if let outcome = job.outcome() { done(PathWatch.Echo(outcome)) }
        }
        do throws(SystemError) { try job.start(address, by: interface) } catch {
            reactor.forget(job.finished.rawValue)
            throw error
        }
        jobs[key] = job
    }
}

extension PathWatch.Echo {
    init(_ outcome: Echo.Outcome) {
        self =
            switch outcome {
            case .reply(let milliseconds): .reply(milliseconds: milliseconds)
            case .refused(let type, let code, _, let whom): .refused("\(whom) refuses, ICMP type \(type) code \(code)")
            case .silence: .silence
            case .unsent(let error): .refused("\(error)")
            }
    }
}
