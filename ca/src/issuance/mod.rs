//! From a CSR to an SVID: parse, authorize, template, lint, log, sign.
