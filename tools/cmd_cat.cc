#include "tools/verbs.h"
#include "tools/version_path.h"

namespace mirage {

constexpr size_t kPieceBytes = 1 << 20;

Action DeclareCat(Options& options) {
  auto places = std::make_shared<std::vector<std::string>>();
  options.Positionals("V:PATH", *places, "files; symbolic links are followed inside the version", 1, 0);
  return [places](Session& session) -> Result<int> {
    ASSIGN_OR_RETURN(const auto library, session.Open());
    const auto snapshot = library->snapshot();
    const TreeReader reader(library);
    for (const std::string& place : *places) {
      ASSIGN_OR_RETURN(const LocatedInVersion found, LocateArgument(*snapshot, reader, place, true));
      const Entry& entry = found.at.entry;
      if (entry.is_directory()) return Fail(EISDIR, "{}: is a directory; `mirage ls` lists it", place);
      if (entry.type != FileType::kRegular)
        return Fail(EINVAL, "{}: is a {}, without contents", place, TypeName(entry.type));
      std::string text;  // for --json, which gives the whole file as one value
      for (uint64_t at = 0; at < entry.size;) {
        std::string piece;
        TRY(reader.Read(entry, at, kPieceBytes, &piece));
        if (piece.empty()) return Fail(EIO, "{}: ends at {} of {} bytes; run `mirage fsck`", place, at, entry.size);
        at += piece.size();
        if (session.json) {
          text += piece;
        } else {
          session.out->Bytes(piece);
        }
      }
      if (session.json) {
        Json json = EntryJson(found.at.path, entry);
        json["data_base64"] = EncodeBase64(text);
        session.out->Object(json);
      }
    }
    return kExitDone;
  };
}

}  // namespace mirage
