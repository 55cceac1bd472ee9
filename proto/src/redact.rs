//! `Debug` of the messages that hold secrets: what they are about, never what they hold.

use std::fmt;

use crate::v1;

macro_rules! redacted {
    ($($message:ident { $($field:ident),* })*) => {$(
        impl fmt::Debug for v1::$message {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($message))$(.field(stringify!($field), &self.$field))*.finish_non_exhaustive()
            }
        }
    )*};
}

redacted! {
    CreateEnvironmentRequest { name, spec, take_over, request_id, validate_only }
    UpdateEnvironmentRequest { name, spec, update_mask, etag, request_id, validate_only }
    RotateSdkKeyRequest { name, force, etag, request_id, validate_only }
    EnvironmentEntry { name, spec, take_over }
    StoreEntry { name, tls }
    Assignment { environment, uid, generation, grant, spec, resync }
    ProveKey { environment }
    CreateStoreRequest { name, tls, request_id, validate_only }
    UpdateStoreRequest { name, tls, update_mask, request_id, validate_only }
    StoreLogin { username, password_from }
    ProbeStore { prefix }
}
