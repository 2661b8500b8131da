// All that a library says, as a plain map, to be compared with what it should say: every ref, and every byte of the version it
// points to.
#pragma once

#include <map>
#include <string>

#include "store/fsck.h"
#include "store/library.h"
#include "store/tree_reader.h"

namespace mirage::testing {

using Files = std::map<std::string, std::string>;  // path -> bytes
using World = std::map<std::string, Files>;        // "branch" or "branch/tag" -> its version

inline Status ReadFiles(const TreeReader& reader, const Entry& directory, const std::string& prefix, Files* files) {
  ASSIGN_OR_RETURN(const auto entries, reader.List(directory.id));
  for (const NamedEntry& named : entries) {
    const std::string path = prefix + named.name;
    if (named.entry.is_directory()) {
      TRY(ReadFiles(reader, named.entry, path + "/", files));
      continue;
    }
    std::string& bytes = (*files)[path];
    TRY(reader.Read(named.entry, 0, named.entry.size, &bytes));
    if (bytes.size() != named.entry.size) return Fail(EIO, "{}: {} bytes of {}", path, bytes.size(), named.entry.size);
  }
  return {};
}

inline Result<Files> ReadVersion(const std::shared_ptr<Library>& library, const ObjectId& manifest_id) {
  ASSIGN_OR_RETURN(const auto manifest, ReadManifest(library->objects(), manifest_id));
  Files files;
  TRY(ReadFiles(TreeReader(library), manifest.root, "", &files));
  return files;
}

inline Result<World> ReadWorld(const std::shared_ptr<Library>& library) {
  World world;
  std::map<ObjectId, Files> known;
  const auto add = [&](const std::string& name, const ObjectId& id) -> Status {
    if (!known.contains(id)) {
      ASSIGN_OR_RETURN(known[id], ReadVersion(library, id));
    }
    world[name] = known[id];
    return {};
  };
  const auto snapshot = library->snapshot();
  ASSIGN_OR_RETURN(const auto branches, snapshot->Branches());
  for (const auto& [branch, head] : branches) {
    TRY(add(branch, head.manifest));
    ASSIGN_OR_RETURN(const auto tags, snapshot->Tags(branch));
    for (const auto& [tag, ref] : tags) TRY(add(branch + "/" + tag, ref.manifest));
  }
  return world;
}

// The damage that fsck finds, one line each; empty: clean.
inline Result<std::string> FsckFindings(Library& library) {
  std::string findings;
  ASSIGN_OR_RETURN(const auto report, Fsck(
                                          library,
                                          [&](const FsckFinding& finding) {
                                            if (finding.kind == FsckFinding::kNote) return;
                                            findings += finding.version + " " + finding.path + " " + finding.what + "\n";
                                          },
                                          {}));
  if (report.damaged > 0 && findings.empty()) findings = "damage without a word";
  return findings;
}

// "debian 3 files, debian/v1 2 files": for messages.
inline std::string Describe(const World& world) {
  std::string text;
  for (const auto& [name, files] : world) text += fmt::format("{} {} files, ", name, files.size());
  return text;
}

}  // namespace mirage::testing
