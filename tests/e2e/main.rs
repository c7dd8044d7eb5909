//! Written with the parts that it tests.
