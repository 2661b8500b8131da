// Errors as values. An Error carries an errno-valued code (a FUSE reply is a cast of it) and one sentence that
// was built where the name of the thing was known. Bad bytes on disk are an Error; a broken invariant stops the program.
#pragma once

#include <cerrno>
#include <string>
#include <string_view>
#include <utility>

#include <fmt/format.h>
#include <tl/expected.hpp>

namespace mirage {

struct [[nodiscard]] Error {
  int code = EIO;       // errno value; never 0
  std::string message;  // what was done, to what, why it failed, and what to try; no trailing newline
};

template <typename T>
using Result = tl::expected<T, Error>;
using Status = Result<void>;

// Fail(ENOENT, "branch {}: no such branch", name) -> converts to any Result<T>.
template <typename... Args>
[[nodiscard]] tl::unexpected<Error> Fail(int code, fmt::format_string<Args...> format, Args&&... args) {
  return tl::make_unexpected(Error{code, fmt::format(format, std::forward<Args>(args)...)});
}
// The same with the text of errno `code` behind it: "open /x: Permission denied".
[[nodiscard]] tl::unexpected<Error> FailErrno(int code, std::string_view what);
// Passes an error on with a prefix: "import disk.raw: " + message.
[[nodiscard]] tl::unexpected<Error> Annotate(Error error, std::string_view prefix);

#define MIRAGE_CONCAT_(a, b) a##b
#define MIRAGE_CONCAT(a, b) MIRAGE_CONCAT_(a, b)
// TRY(expr): returns the error of a Status. ASSIGN_OR_RETURN(auto x, expr): binds the value or returns the error.
#define TRY(expr)                                                                              \
  do {                                                                                         \
    if (auto try_status_ = (expr); !try_status_) return tl::make_unexpected(std::move(try_status_).error()); \
  } while (false)
#define ASSIGN_OR_RETURN_(tmp, lhs, expr)                                    \
  auto tmp = (expr);                                                         \
  if (!tmp) return tl::make_unexpected(std::move(tmp).error());              \
  lhs = std::move(*tmp)
#define ASSIGN_OR_RETURN(lhs, expr) ASSIGN_OR_RETURN_(MIRAGE_CONCAT(result_, __LINE__), lhs, expr)

}  // namespace mirage
