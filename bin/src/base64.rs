//! Base64 with padding (RFC 4648, section 4), for values and keys on the command line.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Decodes; `None` if the text is no base64.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}
