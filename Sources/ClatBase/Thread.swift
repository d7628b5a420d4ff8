import Glibc
import Synchronization

/// A thread of one's own, for what belongs to a thread in the kernel: network namespace, capabilities, blocking reads.
///
/// The result of the body comes back from `join`. A thread that was never joined is a programmer's error.
public struct Thread<Value: Sendable>: ~Copyable, @unchecked Sendable {
    private let handle: pthread_t
    private let job: Job<Value>

    /// Starts `body` on a new thread called `name` (15 octets show in /proc).
    public init(name: String, _ body: @escaping @Sendable () -> Value) throws(SystemError) {
        job = Job(body)
        var thread = pthread_t()
        let context = Unmanaged.passRetained(job as AnyObject)
        let code = pthread_create(
            &thread, nil,
            { context in
                guard let context else { return nil }
                (Unmanaged<AnyObject>.fromOpaque(context).takeRetainedValue() as? any Runnable)?.run()
                return nil
            }, context.toOpaque())
        guard code == 0 else {
            context.release()
            throw SystemError(call: "pthread_create", code: code)
        }
        handle = thread
        pthread_setname_np(thread, String(decoding: name.utf8.prefix(15), as: UTF8.self))
    }

    /// Sends a signal to the thread, to end a system call that blocks.
    public borrowing func signal(_ number: CInt) {
        pthread_kill(handle, number)
    }

    /// Whether the body has returned; `join` then does not wait.
    public borrowing func hasEnded() -> Bool {
        job.ended.load(ordering: .acquiring)
    }

    /// Waits for the end of the body.
    public consuming func join() -> Value {
        pthread_join(handle, nil)
        guard let result = job.result else { preconditionFailure("a joined thread left no result") }
        return result
    }
}

/// Runs `body` on a thread of its own and waits for it: whatever per-thread kernel state it changes dies with the
/// thread.
public func onDedicatedThread<Value: Sendable, Failure: Error>(
    name: String, _ body: @escaping @Sendable () throws(Failure) -> Value
) throws -> Value {
    try Thread(name: name) { () -> Result<Value, Failure> in
        do throws(Failure) { return .success(try body()) } catch { return .failure(error) }
    }.join().get()
}

private protocol Runnable: AnyObject { func run() }

private final class Job<Value: Sendable>: Runnable {
    let body: @Sendable () -> Value
    let ended = Atomic(false)
    nonisolated(unsafe) var result: Value?
    init(_ body: @escaping @Sendable () -> Value) { self.body = body }
    func run() {
        result = body()
        ended.store(true, ordering: .releasing)
    }
}
