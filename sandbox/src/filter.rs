//! The compiled seccomp policies: sandbox/keyholder.json, gate.json, ecdh.json and broker.json.

include!(concat!(env!("OUT_DIR"), "/filters.rs"));
