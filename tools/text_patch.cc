#include "tools/text_patch.h"

#include <git2.h>

#include <memory>

namespace mirage {
namespace {

tl::unexpected<Error> GitError(std::string_view path) {
  const git_error* error = git_error_last();
  return Fail(ENOMEM, "{}: no patch: {}", path, error != nullptr ? error->message : "libgit2 failed");
}

}  // namespace

Result<std::string> MakeTextPatch(std::string_view path, const std::optional<std::string>& before,
                                  const std::optional<std::string>& after) {
  [[maybe_unused]] static const int initialised = git_libgit2_init();
  const std::string name(path);
  git_patch* raw = nullptr;
  const auto bytes = [](const std::optional<std::string>& side) { return side ? side->data() : nullptr; };
  if (git_patch_from_buffers(&raw, bytes(before), before ? before->size() : 0, name.c_str(), bytes(after),
                             after ? after->size() : 0, name.c_str(), nullptr) != 0) {
    return GitError(path);
  }
  const std::unique_ptr<git_patch, decltype(&git_patch_free)> patch(raw, git_patch_free);
  git_buf text = GIT_BUF_INIT;
  if (git_patch_to_buf(&text, patch.get()) != 0) return GitError(path);
  std::string out(text.ptr, text.size);
  git_buf_dispose(&text);
  return out;
}

}  // namespace mirage
