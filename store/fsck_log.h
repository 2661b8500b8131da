// fsck's look at refs.log: replays it from its first byte, and where one byte of it changed, finds which. A record's
// checksum is a SHA-256, so a text that hashes to it, or whose hash the checksum field almost says, is the one that was
// written: what is mended is proved, not guessed.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "store/ref_log.h"

namespace mirage {

struct RefLogCheck {
  LogPosition end;                  // behind the last record that checks (or was mended)
  bool whole = true;                // false: a record that does not check and cannot be mended has others behind it
  std::vector<std::string> damage;  // one sentence each
  std::optional<std::string>
      mended;  // all of the log as it was before it was damaged; nothing: nothing to mend, or no way
};
// Replays the log (its mended text, where there is one) to `visit`. Memory: a record, and all of the log if it is
// damaged. An Error: the file cannot be read, or `visit` failed. The caller holds the publish lock.
Result<RefLogCheck> CheckRefLog(Env& env, const std::string& path,
                                const std::function<Status(const RefRecord&)>& visit);

// The line (with its newline) that one changed byte made of `text`'s first line; `consumed`: how many bytes of `text`
// it stands for. Nothing: no single byte explains it.
std::optional<std::string> MendRefRecord(std::string_view text, const ObjectId& chain, uint64_t sequence,
                                         size_t* consumed);

}  // namespace mirage
