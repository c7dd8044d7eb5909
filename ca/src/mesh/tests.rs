//! Plan, apply and roll back against a store.
