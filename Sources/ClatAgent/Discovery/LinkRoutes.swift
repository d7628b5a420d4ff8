public import ClatBase
import ClatTranslator

/// Which router leads to a PREF64, by default routes and by Route Information options (RFC 4191).
extension LinkKnowledge {
    /// False where there is no room for one more.
    mutating func hear(
        _ information: RouterAdvertisement.RouteInformation, from router: IPv6Address, now: BootInstant
    ) -> Bool {
        let known = routes.firstIndex { $0.router == router && $0.prefix == information.prefix }
        guard information.lifetime > 0 else {
            if let known { routes.remove(at: known) }
            return true
        }
        let route = Route(
            router: router, prefix: information.prefix, preference: information.preference,
            expires: information.lifetime == .max ? nil : now + .seconds(Int(information.lifetime)), heard: now)
        if let known {
            routes[known] = route
        } else {
            guard routes.count < Self.routeCapacity else { return false }
            routes.append(route)
        }
        return true
    }

    /// The routes towards a PREF64, those with the longest prefix only.
    func leading(to entry: PREF64Table.Entry) -> [Route] {
        let target = entry.prefix.prefix
        let leading = routes.filter { $0.prefix.length <= target.length && $0.prefix.contains(target.address) }
        let longest = leading.map(\.prefix.length).max()
        return leading.filter { $0.prefix.length == longest }
    }

    /// The router to use towards a PREF64: of those that say that they lead there, by the longest prefix, else of the default
    /// routers; among them the one that told it, else the best.
    public func router(for entry: PREF64Table.Entry, now: BootInstant) -> Router? {
        var candidates = leading(to: entry).compactMap { route in
            routers.first { $0.address == route.router }.map { ($0, route.preference) }
        }
        if candidates.isEmpty { candidates = routers.filter { $0.expires > now }.map { ($0, $0.preference) } }
        if let teller = candidates.first(where: { $0.0.address == entry.router }) { return teller.0 }
        // The first of the best.
        let best = candidates.map(\.1).max()
        return candidates.first { $0.1 == best }?.0
    }
}
