//! `/v2/`: whether this is a registry. Never depends on an upstream.

use http::Response;

use super::json_response;
use crate::server::body::ResponseBody;

/// Says yes, and asks for no credentials: the clients that take their challenges from here alone
/// then never send any.
pub(in crate::server) fn answer_base() -> Response<ResponseBody> {
    json_response("{}")
}
