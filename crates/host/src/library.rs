//! Loads a C library and finds its functions when the daemon runs: it builds without the library's headers, and says what is missing
//! where the library is not installed.

/// Why a library cannot be used.
pub(crate) enum LoadError {
    /// It could not be loaded.
    Missing(libloading::Error),
    /// It lacks a function.
    Unsuitable(libloading::Error),
}

/// Declares a struct of a library's functions, and `load`, which finds them. What was loaded stays: the library's threads and ours run
/// its code.
macro_rules! functions {
    (
        $(#[$api_doc:meta])* $vis:vis struct $api:ident;
        $($(#[$doc:meta])* fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $ret:ty)?;)+
    ) => {
        $(#[$api_doc])*
        #[allow(non_snake_case, clippy::struct_field_names, reason = "the library's names")]
        $vis struct $api {
            $($(#[$doc])* $vis $name: unsafe extern "C" fn($($type),*) $(-> $ret)?,)+
        }

        impl $api {
            /// Loads `path` and finds every function.
            $vis fn load(path: &str) -> Result<Self, $crate::library::LoadError> {
                // SAFETY: the initialisers of the libraries that are named here have no preconditions; whoever can replace what
                // this name resolves to is root already.
                let library =
                    unsafe { libloading::Library::new(path) }.map_err($crate::library::LoadError::Missing)?;
                let api = Self {
                    // SAFETY: each signature is the one of the library's public headers.
                    $($name: *unsafe {
                        library.get::<unsafe extern "C" fn($($type),*) $(-> $ret)?>(
                            concat!(stringify!($name), "\0").as_bytes(),
                        )
                    }
                    .map_err($crate::library::LoadError::Unsuitable)?,)+
                };
                std::mem::forget(library);
                Ok(api)
            }
        }
    };
}
pub(crate) use functions;
