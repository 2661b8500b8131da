#include "tests/model/library_model.h"

#include <set>

#include "store/diff.h"
#include "store/gc.h"
#include "tests/testing/store_fixture.h"

namespace mirage::testing {
namespace {

constexpr const char* kBranches[] = {"debian", "devel", "rhel"};
constexpr int kFiles = 8;
constexpr FaultEnv::Loss kLosses[] = {FaultEnv::Loss::kNothing, FaultEnv::Loss::kUnsynced, FaultEnv::Loss::kUnsyncedBytes,
                                      FaultEnv::Loss::kSome};

std::string Bytes(uint8_t seed, size_t size) {
  std::string bytes;
  for (uint32_t state = seed; bytes.size() < size;) {
    state = state * 1664525 + 1013904223;
    bytes += static_cast<char>(state >> 24);
  }
  return bytes;
}

Status Differs(std::string what) { return Fail(EILSEQ, "{}", what); }

}  // namespace

// Bytes, and zeros when they are over.
class LibraryModel::Input {
 public:
  explicit Input(std::string_view bytes) : bytes_(bytes) {}
  bool empty() const { return bytes_.empty(); }
  uint8_t Next() {
    if (bytes_.empty()) return 0;
    const auto byte = static_cast<uint8_t>(bytes_[0]);
    bytes_.remove_prefix(1);
    return byte;
  }
  size_t Below(size_t limit) { return Next() % limit; }

 private:
  std::string_view bytes_;
};

LibraryModel::LibraryModel(const std::string& directory) : env_(directory), path_(directory + "/library") {
  Must(Library::Create(path_, {.env = &env_, .chunking = {1024, 2048, 4096}}));
  Must(Reopen());
}
LibraryModel::~LibraryModel() = default;

Status LibraryModel::Reopen() {
  library_.reset();
  ASSIGN_OR_RETURN(library_, Library::Open(path_, {.env = &env_}));
  return {};
}

std::string LibraryModel::PickRef(Input& in, bool tag) const {
  std::vector<std::string> names;
  for (const auto& [name, files] : world_) {
    if ((name.find('/') != std::string::npos) == tag) names.push_back(name);
  }
  return names.empty() ? "" : names[in.Below(names.size())];
}

Result<ObjectId> LibraryModel::Target(const std::string& ref) const {
  ASSIGN_OR_RETURN(const auto found, library_->snapshot()->Branch(ref));
  if (!found) return Fail(EILSEQ, "{}: the library has no such ref", ref);
  return found->manifest;
}

LibraryModel::Edit LibraryModel::NextEdit(Input& in) const {
  Edit edit{kBranches[in.Below(std::size(kBranches))], {}};
  if (const auto head = world_.find(edit.branch); head != world_.end()) edit.files = head->second;
  for (size_t edits = 1 + in.Below(4); edits > 0; --edits) {
    const std::string name = "f" + std::to_string(in.Below(kFiles));
    const uint8_t how = in.Next();
    if (how % 4 == 0) {
      edit.files.erase(name);
    } else {
      edit.files[name] = Bytes(in.Next(), how % 16 == 1 ? 9000 : how);
    }
  }
  return edit;
}

void LibraryModel::Published(const Edit& edit) {
  world_[edit.branch] = edit.files;
  world_[fmt::format("{}/v{}", edit.branch, ++highest_[edit.branch])] = edit.files;
}

Status LibraryModel::Publish(Input& in) {
  const Edit edit = NextEdit(in);
  Say(fmt::format("publish {} with {} files", edit.branch, edit.files.size()));
  ASSIGN_OR_RETURN(const auto published, PublishFiles(library_, edit.branch, edit.files));
  Published(edit);
  if (published.tag != fmt::format("v{}", highest_[edit.branch])) return Differs("it got the tag " + published.tag);
  return {};
}

Status LibraryModel::MoveTag(Input& in) {
  const std::string from = PickRef(in, in.Below(2) == 0);
  if (from.empty()) return {};
  const std::string branch = from.substr(0, from.find('/'));
  const std::string tag = branch + "/t" + std::to_string(in.Below(4));
  Say("tag " + from + " as " + tag);
  ObjectId before;
  if (world_.contains(tag)) {
    ASSIGN_OR_RETURN(before, Target(tag));
  }
  ASSIGN_OR_RETURN(const ObjectId id, Target(from));
  TRY(library_->MoveRefs("tag", {{tag, before, id}}));
  world_[tag] = world_[from];
  // A move from where the ref no longer is must be refused.
  if (before != id && library_->MoveRefs("tag", {{tag, before, before}})) return Differs("a stale move was taken");
  return {};
}

Status LibraryModel::DeleteTag(Input& in) {
  const std::string tag = PickRef(in, true);
  if (tag.empty()) return {};
  Say("delete tag " + tag);
  ASSIGN_OR_RETURN(const ObjectId id, Target(tag));
  TRY(library_->MoveRefs("tag", {{tag, id, ObjectId()}}));
  world_.erase(tag);
  return {};
}

Status LibraryModel::MakeBranch(Input& in) {
  const std::string from = PickRef(in, in.Below(2) == 0), name = kBranches[in.Below(std::size(kBranches))];
  if (from.empty()) return {};
  Say("branch " + name + " from " + from);
  ASSIGN_OR_RETURN(const ObjectId id, Target(from));
  const Status made = library_->MoveRefs("branch", {{name, ObjectId(), id}});
  if (made.has_value() == world_.contains(name)) return Differs(made ? "made a branch twice" : made.error().message);
  if (made) world_[name] = world_[from];
  return {};
}

Status LibraryModel::DeleteBranch(Input& in) {
  const std::string branch = PickRef(in, false);
  if (branch.empty() || in.Below(4) != 0) return {};
  Say("delete branch " + branch);
  std::vector<RefMove> moves;
  for (const auto& [name, files] : world_) {
    if (name != branch && !name.starts_with(branch + "/")) continue;
    ASSIGN_OR_RETURN(const ObjectId id, Target(name));
    moves.push_back({name, id, ObjectId()});
  }
  TRY(library_->MoveRefs("branch", moves));
  for (const RefMove& move : moves) world_.erase(move.name);
  return {};
}

Status LibraryModel::Diff(Input& in) {
  const std::string a = PickRef(in, in.Below(2) == 0), b = PickRef(in, in.Below(2) == 0);
  if (a.empty() || b.empty()) return {};
  Say("diff " + a + " " + b);
  std::set<std::string> expected, found;
  for (const auto& [name, bytes] : world_[a]) {
    const auto other = world_[b].find(name);
    if (other == world_[b].end()) {
      expected.insert("D " + name);
    } else if (other->second != bytes) {
      expected.insert("M " + name);
    }
  }
  for (const auto& [name, bytes] : world_[b]) {
    if (!world_[a].contains(name)) expected.insert("A " + name);
  }
  ASSIGN_OR_RETURN(const ObjectId first, Target(a));
  ASSIGN_OR_RETURN(const ObjectId second, Target(b));
  ASSIGN_OR_RETURN(const Manifest before, ReadManifest(library_->objects(), first));
  ASSIGN_OR_RETURN(const Manifest after, ReadManifest(library_->objects(), second));
  TRY(DiffVersions(TreeReader(library_), before, after, "", [&](const Change& change) -> Status {
    found.insert(std::string(1, static_cast<char>(change.kind)) + " " + change.path);
    return {};
  }));
  if (found != expected) return Differs(fmt::format("{} changes, not {}", found.size(), expected.size()));
  return {};
}

// A publish that stops somewhere; then the old world or the new one.
Status LibraryModel::Crash(Input& in) {
  const Edit edit = NextEdit(in);
  const uint64_t distance = 1 + in.Below(130);
  const auto loss = kLosses[in.Below(std::size(kLosses))];
  Say(fmt::format("publish {}, stop after {}, loss {}", edit.branch, distance, static_cast<int>(loss)));
  env_.StopAt(env_.operations() + distance);
  const auto published = PublishFiles(library_, edit.branch, edit.files);
  library_.reset();
  env_.Restart(loss, in.Next());
  TRY(Reopen());
  ASSIGN_OR_RETURN(const World now, ReadWorld(library_));
  if (now == world_ && !published) return {};
  Published(edit);
  return {};  // Compare follows
}

Status LibraryModel::FullDisk(Input& in) {
  const Edit edit = NextEdit(in);
  const uint64_t distance = 1 + in.Below(130);
  Say(fmt::format("publish {}, disk full after {}", edit.branch, distance));
  env_.FillAt(env_.operations() + distance);
  const auto published = PublishFiles(library_, edit.branch, edit.files);
  env_.Heal();
  if (!published && published.error().code != ENOSPC) return Differs(published.error().message);
  if (published) Published(edit);
  TRY(library_->Refresh());
  return {};
}

Status LibraryModel::Collect(Input& in) {
  GcOptions options;
  options.wait_ms = 0;
  options.compact = in.Below(3) == 0;
  options.compact_level = 1 + static_cast<int>(in.Below(6));
  const bool crash = in.Below(2) == 0;
  const uint64_t distance = 1 + in.Below(160);
  const FaultEnv::Loss loss = kLosses[in.Below(std::size(kLosses))];
  const uint8_t seed = in.Next();
  Say(fmt::format("gc{}{}", options.compact ? fmt::format(" --compact at {}", options.compact_level) : "",
                  crash ? fmt::format(", stop after {}, loss {}", distance, static_cast<int>(loss)) : ""));
  if (crash) env_.StopAt(env_.operations() + distance);
  const auto report = CollectGarbage(*library_, options);
  if (!crash) {
    if (!report) return tl::make_unexpected(report.error());
    return library_->Refresh().map([](bool) {});
  }
  library_.reset();
  env_.Restart(loss, seed);
  return Reopen();
}

Status LibraryModel::Compare() {
  ASSIGN_OR_RETURN(const World now, ReadWorld(library_));
  if (now != world_) return Differs("the library says " + Describe(now) + "and the model " + Describe(world_));
  for (const auto& [branch, highest] : highest_) {
    ASSIGN_OR_RETURN(const uint64_t number, library_->snapshot()->HighestVersion(branch));
    if (number != highest) return Differs(fmt::format("{}: v{} is the highest, not v{}", branch, number, highest));
  }
  return {};
}

Status LibraryModel::Step(Input& in) {
  switch (in.Below(18)) {
    case 0: case 1: case 2: case 3: return Publish(in);
    case 4: case 5: return MoveTag(in);
    case 6: return DeleteTag(in);
    case 7: return MakeBranch(in);
    case 8: return DeleteBranch(in);
    case 9: return Diff(in);
    case 10:
      Say("reopen");
      TRY(Reopen());
      return Compare();
    case 11:
      TRY(library_->Refresh());
      return Compare();
    case 12: case 13:
      TRY(Crash(in));
      return Compare();
    case 14:
      TRY(FullDisk(in));
      return Compare();
    case 15: case 16:
      TRY(Collect(in));
      return Compare();
    default: return Compare();
  }
}

std::string LibraryModel::Run(std::string_view bytes) {
  Input in(bytes);
  while (!in.empty()) {
    if (const Status status = Step(in); !status) return status.error().message;
  }
  const auto end = [&]() -> Result<std::string> {
    TRY(Reopen());
    TRY(Compare());
    return FsckFindings(*library_);
  }();
  return end ? *end : end.error().message;
}

}  // namespace mirage::testing
