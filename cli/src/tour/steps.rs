//! The tour's calls and their declared outcomes: a table.

/// What is done.
#[derive(Debug, Clone, Copy)]
pub(super) enum Action {
    /// One service calls another through its proxy.
    Call {
        /// Who calls.
        from: &'static str,
        /// Method.
        method: &'static str,
        /// Target, sent as it is.
        target: &'static str,
        /// The token that goes with it.
        token: Token,
    },
    /// A call without TLS to the inbound listener.
    PlainText,
    /// A TLS client whose certificate names `orders`, of a CA that nobody trusts.
    ForeignCertificate,
}

/// The token that goes with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    /// None.
    None,
    /// A JWT-SVID that the caller fetches for this audience.
    Audience(&'static str),
    /// One that has expired.
    Expired,
}

/// One line of the tour.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    /// Place in the table.
    pub(super) number: u32,
    /// For a person.
    pub(super) title: &'static str,
    /// The service that is called.
    pub(super) to: &'static str,
    /// What is done.
    pub(super) action: Action,
    /// Declared status code; 0 where the connection has to be closed.
    pub(super) status: u16,
    /// Declared code of the decision.
    pub(super) code: &'static str,
    /// Declared deciding policy; empty where none decides.
    pub(super) policy: &'static str,
}

const fn call(
    from: &'static str,
    method: &'static str,
    target: &'static str,
    token: Token,
) -> Action {
    Action::Call {
        from,
        method,
        target,
        token,
    }
}

/// The tour.
pub(super) const STEPS: [Step; 9] = [
    Step {
        number: 1,
        title: "orders -> inventory  GET /inventory/42",
        to: "inventory",
        action: call("orders", "GET", "/inventory/42", Token::None),
        status: 200,
        code: "allowed",
        policy: "shop/inventory-allow-orders",
    },
    Step {
        number: 2,
        title: "orders -> payments  POST /pay, without a token",
        to: "payments",
        action: call("orders", "POST", "/pay", Token::None),
        status: 403,
        code: "no_allow_matched",
        policy: "",
    },
    Step {
        number: 3,
        title: "orders -> payments  POST /pay, expired token",
        to: "payments",
        action: call("orders", "POST", "/pay", Token::Expired),
        status: 401,
        code: "token_expired",
        policy: "",
    },
    Step {
        number: 4,
        title: "orders -> payments  POST /pay, token for `inventory`",
        to: "payments",
        action: call("orders", "POST", "/pay", Token::Audience("inventory")),
        status: 403,
        code: "token_audience",
        policy: "",
    },
    Step {
        number: 5,
        title: "orders -> payments  POST /pay, token for `payments`",
        to: "payments",
        action: call("orders", "POST", "/pay", Token::Audience("payments")),
        status: 200,
        code: "allowed",
        policy: "shop/payments-allow-orders",
    },
    Step {
        number: 6,
        title: "notifications -> payments  POST /pay, token for `payments`",
        to: "payments",
        action: call("notifications", "POST", "/pay", Token::Audience("payments")),
        status: 403,
        code: "policy_denied",
        policy: "shop/payments-deny-others",
    },
    Step {
        number: 7,
        title: "orders -> inventory  GET /inventory//..%2fadmin",
        to: "inventory",
        action: call("orders", "GET", "/inventory//..%2fadmin", Token::None),
        status: 400,
        code: "path_ambiguous",
        policy: "",
    },
    Step {
        number: 8,
        title: "plain text to the inbound listener of payments",
        to: "payments",
        action: Action::PlainText,
        status: 0,
        code: "plaintext_refused",
        policy: "",
    },
    Step {
        number: 9,
        title: "a certificate for `orders` of another CA",
        to: "payments",
        action: Action::ForeignCertificate,
        status: 0,
        code: "peer_untrusted",
        policy: "",
    },
];
