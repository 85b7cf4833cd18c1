//! How the agent is linked.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // The shipped form: relocations packed. They are all read at start, and would stay in memory at 24 bytes each.
    if std::env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|env| env == "musl") {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
        // Functions of one crate beside each other: what only a reconstruct runs stays out of the memory of an idle agent.
        println!("cargo:rustc-link-arg-bins=-Wl,--sort-section=name");
    }
}
