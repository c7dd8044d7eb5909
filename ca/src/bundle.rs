//! The trust bundle that the authorities make up.
