//! Finds the installed library with pkg-config, or builds the repository's with CMake (feature `source`).

fn main() {
    println!("cargo:rerun-if-env-changed=PKG_CONFIG_PATH");
    #[cfg(feature = "source")]
    build();
    #[cfg(not(feature = "source"))]
    find();
}

#[cfg(not(feature = "source"))]
fn find() {
    match pkg_config::Config::new()
        .atleast_version("0.1.0")
        .probe("attend")
    {
        Ok(library) => {
            // For the tests and examples of this workspace; other packages ask for it by DEP_ATTEND_LIBDIR.
            for path in &library.link_paths {
                println!("cargo:libdir={}", path.display());
            }
        }
        Err(error) => {
            eprintln!(
                "{error}\nInstall attend, set PKG_CONFIG_PATH, or enable the feature `source`."
            );
            std::process::exit(1);
        }
    }
}

#[cfg(feature = "source")]
fn build() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..");
    if !root.join("include/attend/attend.h").exists() {
        eprintln!("the feature `source` needs the crate to lie in attend's repository");
        std::process::exit(1);
    }
    for part in ["CMakeLists.txt", "src", "include"] {
        println!("cargo:rerun-if-changed={}", root.join(part).display());
    }
    let built = cmake::Config::new(&root)
        .generator("Ninja")
        .profile("Release")
        .define("ATTEND_BUILD_TESTS", "OFF")
        .define("ATTEND_BUILD_BENCH", "OFF")
        .build();
    println!(
        "cargo:rustc-link-search=native={}",
        built.join("lib").display()
    );
    println!("cargo:rustc-link-lib=static=attend");
    for library in ["stdc++", "gomp", "m"] {
        println!("cargo:rustc-link-lib={library}");
    }
}
