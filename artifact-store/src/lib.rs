//! Documents kept under the digest of their canonical JSON.
