//! The compiled seccomp policies: sandbox/keyholder.json, gate.json, ecdh.json, broker.json and supervisor.json.

include!(concat!(env!("OUT_DIR"), "/filters.rs"));
