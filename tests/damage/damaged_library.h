// A small library with two branches, and what its readers get of it after something was done to its files.
#pragma once

#include <filesystem>
#include <fstream>
#include <set>

#include "store/fsck.h"
#include "store/revision.h"
#include "tests/testing/memory_store.h"
#include "tests/testing/store_fixture.h"

namespace mirage::testing {

// What a reader of all the library sees.
struct Reading {
  std::string open_error;                    // empty: it opened
  std::map<std::string, std::string> refs;   // "debian/v1" -> id
  std::map<std::string, std::string> files;  // "debian/v1:/a" -> bytes
  std::map<std::string, Error> failed;       // the same -> why not; a version that cannot be read: "debian/v1:"
};

struct Checking {
  int exit = 0;  // as the command gives: 0 clean, 1 repaired, 4 damage left, 8 could not run
  std::string error;
  FsckReport report;
  std::vector<FsckFinding> findings;

  std::string Text() const {
    std::string text = error;
    for (const FsckFinding& f : findings)
      text += fmt::format("{}: {} ({}:{})\n", static_cast<int>(f.kind), f.what, f.version, f.path);
    return text;
  }
  bool Names(const std::string& version, const std::string& path, FsckFinding::Kind kind = FsckFinding::kDamage) const {
    for (const FsckFinding& f : findings) {
      if (f.kind == kind && f.version == version && f.path == path) return true;
    }
    return false;
  }
  size_t Count(FsckFinding::Kind kind) const {
    return static_cast<size_t>(
        std::count_if(findings.begin(), findings.end(), [&](const auto& f) { return f.kind == kind; }));
  }
};

class DamagedLibraryTest : public LibraryTest {
 protected:
  // Three versions: files of one chunk, of many, with a hole, and one that the second version changed.
  void Fill() {
    first_ = {{"a", "one"},
              {"hole", RandomBytes(50'000, 3) + std::string(100'000, '\0') + "end"},
              {"noise", RandomBytes(300'000, 1)},
              {"other", RandomBytes(20'000, 2)}};
    second_ = first_;
    second_["a"] = "two";
    second_["new"] = RandomBytes(90'000, 4);
    Must(Publish(library_, "debian", first_));
    Must(Publish(library_, "debian", second_));
    Must(Publish(library_, "suse", {{"only", RandomBytes(70'000, 5)}}));
    library_.reset();
  }
  void FillSmall() {
    first_ = {{"a", "one"}, {"b", std::string(300, 'b')}};
    second_ = first_;
    second_["a"] = "two";
    Must(Publish(library_, "debian", first_));
    Must(Publish(library_, "debian", second_));
    library_.reset();
  }
  static Reading Read(const std::string& path) {
    Reading reading;
    const auto opened = Library::Open(path, {});
    if (!opened) {
      reading.open_error = opened.error().message;
      return reading;
    }
    const TreeReader reader(*opened);
    const auto snapshot = (*opened)->snapshot();
    const auto branches = snapshot->Branches();
    if (!branches) {
      reading.open_error = branches.error().message;
      return reading;
    }
    const auto read = [&](const std::string& version, const ObjectId& id) {
      reading.refs[version] = id.Hex();
      const auto manifest = ReadManifest(*snapshot, id);
      const auto entries = manifest ? reader.List(manifest->root.id) : tl::make_unexpected(manifest.error());
      if (!entries) {
        reading.failed[version + ":"] = entries.error();
        return;
      }
      for (const NamedEntry& named : *entries) {
        std::string bytes;
        const auto status = reader.Read(named.entry, 0, named.entry.size, &bytes);
        const std::string key = version + ":/" + named.name;
        if (status) {
          reading.files[key] = bytes;
        } else {
          reading.failed[key] = status.error();
        }
      }
    };
    for (const auto& [branch, ref] : *branches) {
      read(branch, ref.manifest);
      const auto tags = snapshot->Tags(branch);
      if (!tags) {
        reading.open_error = tags.error().message;
        return reading;
      }
      for (const auto& [tag, tagged] : *tags) read(branch + "/" + tag, tagged.manifest);
    }
    return reading;
  }
  static Checking Check(const std::string& path, bool repair = false) {
    Checking checking;
    FsckOptions options;
    options.repair = repair;
    const auto report = Fsck(path, options, [&](const FsckFinding& f) { checking.findings.push_back(f); }, {});
    if (!report) {
      checking.exit = 8;
      checking.error = report.error().message;
      return checking;
    }
    checking.report = *report;
    checking.exit = report->damaged > 0 ? 4 : report->repaired > 0 ? 1 : 0;
    return checking;
  }
  std::vector<std::string> Packs() const {
    std::vector<std::string> paths;
    for (const std::string& name : Must(Env::Default().List(path() + "/packs"))) paths.push_back("packs/" + name);
    return paths;
  }
  std::string Bytes(const std::string& file) const {
    return Must(ReadWholeFile(Env::Default(), path() + "/" + file, 1 << 30));
  }
  void SetBytes(const std::string& file, const std::string& bytes) const {
    std::ofstream out(path() + "/" + file, std::ios::binary | std::ios::trunc);
    out << bytes;
    ASSERT_TRUE(out.flush());
  }
  // The pack that holds the first chunk of a file of one branch's head.
  std::string PackOf(const std::string& version, const std::string& name) const {
    const auto library = Must(Library::Open(path(), {}));
    const auto snapshot = library->snapshot();
    const TreeReader reader(library);
    const Version resolved = Must(ResolveVersion(*snapshot, version));
    const Entry entry = Must(reader.Find(resolved.manifest.root, name));
    auto chunk = entry.id;
    if (const auto list = snapshot->ReadObject(ObjectKind::kContent, entry.id)) {
      chunk = Must(DecodeContentNode(*list)).segments.front().id;
    }
    const auto location = Must(snapshot->FindChunk(chunk));
    return location ? "packs/" + PackFileName(location->pack) : "";
  }

  std::map<std::string, std::string> first_, second_;
};

}  // namespace mirage::testing
