//! One stream per agent: deltas out, acknowledgements in.
