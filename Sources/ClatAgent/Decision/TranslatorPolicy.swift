import ClatTranslator

extension LinkPolicy {
    /// Brings what the operator wants of the translator into its configuration.
    func settle(_ translator: inout TranslatorConfiguration) {
        translator.hopLimitDecrement = ttl == .keep ? 0 : 1
        translator.strictHopLimit = strictHopLimit
        translator.copyTrafficClass = trafficClass == .copy
        translator.lowestIPv6MTU = lowestIPv6MTU ?? translator.lowestIPv6MTU
        translator.strictWellKnownPrefix = strictWellKnownPrefix
        translator.nodeIdentification = nodeIdentification
        translator.answerUntranslatable = answerUntranslatable
        translator.errorsPerSecond = errorsPerSecond
    }
}
