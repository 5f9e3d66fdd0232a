//! Finds the installed library with pkg-config, or builds it with CMake (feature `source`).

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
    // The crate as it is packed has the sources inside, that of the repository lies beside them.
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let packed = here.join("attend");
    let root = if packed.exists() {
        packed
    } else {
        here.join("../../..")
    };
    for part in ["CMakeLists.txt", "src", "include"] {
        println!("cargo:rerun-if-changed={}", root.join(part).display());
    }
    let built = cmake::Config::new(&root)
        .generator("Ninja")
        .profile("Release")
        .define("ATTEND_BUILD_TESTS", "OFF")
        .define("ATTEND_BUILD_BENCH", "OFF")
        .define("ATTEND_BUILD_EXAMPLES", "OFF")
        .define("ATTEND_MPI", "OFF")
        .define("CMAKE_INSTALL_LIBDIR", "lib")
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
