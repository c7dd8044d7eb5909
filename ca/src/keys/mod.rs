//! Key stores: where the authorities' private keys rest.
