//! HTTP/1.1 as a client speaks it: a request as bytes, a response from bytes that arrive in pieces.
//!
//! Follows RFC 9112 (messages) and RFC 9110 (names, values, status codes), with `httparse` for the header lines:
//!
//! ```text
//! PATCH /id/web/upstreams HTTP/1.1\r\n      HTTP/1.1 200 OK\r\n
//! Host: 127.0.0.1:2019\r\n                  Transfer-Encoding: chunked\r\n
//! Content-Length: 28\r\n                    \r\n
//! \r\n                                      1c\r\n[{"dial":"10.0.0.5:8080"}]..\r\n
//! [{"dial":"10.0.0.5:8080"}]..              0\r\nEtag: "6dfb3b7d"\r\n\r\n
//! ```
//!
//! - `request`: [`Request`] refuses whatever could end a line early, so no value can smuggle a second request.
//! - `response`: [`Reader`] is fed bytes in any pieces and yields one [`Response`]; each byte is looked at a fixed
//!   number of times and every part is bounded.
//! - `chunked`: the chunked transfer coding. `url`: [`HttpUrl`], the `http:` urls of options.
//!
//! Nothing here opens a connection, follows a redirect, decompresses, or reads a clock.

mod chunked;
mod fuzz;
mod headers;
mod request;
mod response;
mod url;

pub use fuzz::fuzz_http1;
pub use headers::Headers;
pub use request::{BadRequest, Request, check_header};
pub use response::{Asked, Error, MAX_HEAD, MAX_HEADERS, Progress, Reader, Response};
pub use url::HttpUrl;
