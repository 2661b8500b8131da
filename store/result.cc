#include "store/result.h"

#include <system_error>

namespace mirage {

tl::unexpected<Error> FailErrno(int code, std::string_view what) {
  return Fail(code, "{}: {}", what, std::generic_category().message(code));
}

tl::unexpected<Error> Annotate(Error error, std::string_view prefix) {
  error.message = fmt::format("{}: {}", prefix, error.message);
  return tl::make_unexpected(std::move(error));
}

}  // namespace mirage
