//! Tests and examples find the library where pkg-config did.

fn main() {
    if let Ok(path) = std::env::var("DEP_ATTEND_LIBDIR") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{path}");
    }
}
