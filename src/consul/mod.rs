//! The Consul adapter.
