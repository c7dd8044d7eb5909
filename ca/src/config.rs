//! The CA's configuration: TOML file and environment.
