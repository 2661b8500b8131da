// A reader of tar streams, the appliance's and the user's: POSIX (ustar, pax) and GNU tar's own format, with its sparse
// members in all four forms. Not libarchive, which loses what we keep: it takes an mtime of -0.5 for +0.5, hands attribute
// names on as GNU tar escaped them (%3D), and converts names by the locale. The bytes come from a guest or a stranger
// that is not trusted: every field is checked, and memory is bounded.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "store/object.h"
#include "store/result.h"

namespace mirage {

struct TarPiece {
  uint64_t offset = 0, length = 0;
};
struct TarMember {
  std::string path;     // without "./" and slashes at the ends; "" is the top
  bool hard_link = false;  // then only path and target (the first name, like path) hold
  Entry entry;          // type, mode, owner, mtime, rdev
  XattrSet xattrs;
  std::string target;   // of a symbolic or hard link
  uint64_t size = 0;    // of the file
  // Of a sparse member, where in the file the data that follows belongs, in ascending order; all else is zeros. Of any
  // other the data is the whole file.
  bool sparse = false;
  std::vector<TarPiece> pieces;
  bool text_acl = false;  // it has ACLs as text (SCHILY.acl), which are not taken over
};

class TarStream {
 public:
  // Fills the buffer as far as it can; 0 at the end.
  using Source = std::function<Result<size_t>(char* out, size_t size)>;
  // Leaves out so many bytes, for a source that can do so without reading them.
  using Skip = std::function<Status(uint64_t size)>;
  explicit TarStream(Source source, Skip skip = {}) : source_(std::move(source)), skip_(std::move(skip)) {}

  // The stream may end behind a member's data, without its padding and the blocks of zeros, as layers made by `umoci
  // insert` do: their digests tell that nothing is missing.
  void AllowMissingEnd() { end_needed_ = false; }

  // The next member, or nothing at the archive's end. Data that was not read is skipped. EIO: not a tar stream, or it
  // ends too early.
  Result<std::optional<TarMember>> Next();
  // The next piece of the current member's data, at most `limit` bytes; empty at its end.
  Result<std::string> ReadData(size_t limit);

 private:
  struct Extensions;
  Status ReadExactly(char* out, size_t size);
  Result<std::string> ReadWhole(uint64_t size);
  Status SkipData();

  Status ReadOldSparse(std::string_view header, TarMember& member);
  Status ReadSparseMap(TarMember& member);
  Status CheckSparse(const TarMember& member) const;

  Source source_;
  Skip skip_;
  bool end_needed_ = true;
  uint64_t data_left_ = 0, padding_ = 0;
};

}  // namespace mirage
