import CLinux
import ClatBase
import Glibc

/// Sends echo requests through CLATs, each on a thread of its own that lives for a second at most.
final class EchoRunner {
    private struct Request {
        var address: IPv4Address
        var interface: String
        var done: (PathWatch.Echo) -> Void

        static func ask(_ address: IPv4Address, by interface: String) -> Echo.Outcome {
            do throws(SystemError) {
                var echo = try Echo.ipv4(by: interface)
                // Before anybody is listened to.
                try Privileges.keepOnly([])
                return echo.ask(address, size: 84)
            } catch {
                return .unsent(error)
            }
        }
    }

    private final class Job {
        private var thread: ClatBase.Thread<Echo.Outcome>?
        let finished: OwnedDescriptor
        /// What waits for its end.
        var next: Request?

        init() throws(SystemError) {
            finished = OwnedDescriptor(adopting: try retrying("eventfd") { eventfd(0, CInt(EFD_CLOEXEC)) })
        }

        func start(_ request: Request) throws(SystemError) {
            let (descriptor, address, interface) = (finished.rawValue, request.address, request.interface)
            thread = try ClatBase.Thread(name: "echo") {
                let outcome = Request.ask(address, by: interface)
                eventfd_write(descriptor, 1)
                return outcome
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

    /// Asks an IPv4 address out of a device, and says later what came of it. `key` is whom it is for: one at a time, the last
    /// of those that come meanwhile after it.
    func ask(_ address: IPv4Address, by interface: String, for key: Int, _ done: @escaping (PathWatch.Echo) -> Void) {
        let request = Request(address: address, interface: interface, done: done)
        if let job = jobs[key] { job.next = request } else { start(request, for: key) }
    }

    private func start(_ request: Request, for key: Int) {
        do throws(SystemError) {
            let job = try Job()
            try reactor.watch(job.finished.rawValue, .read) { [unowned self] in
                reactor.forget(job.finished.rawValue)
                jobs[key] = nil
                if let next = job.next { start(next, for: key) }
                if let outcome = job.outcome() { request.done(PathWatch.Echo(outcome)) }
            }
            do throws(SystemError) { try job.start(request) } catch {
                reactor.forget(job.finished.rawValue)
                throw error
            }
            jobs[key] = job
        } catch {
            request.done(.refused("\(error)"))
        }
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
