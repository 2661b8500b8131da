#include "tests/crash/scenario.h"

#include <filesystem>

#include "mirfs/branch_fs.h"
#include "mirfs/committer.h"
#include "store/gc.h"
#include "tests/mirfs/model_tree.h"
#include "tests/testing/store_fixture.h"

namespace mirage::testing {
namespace {

namespace fs = std::filesystem;

std::string Text(int seed, size_t size) {
  std::string bytes;
  for (uint64_t state = static_cast<uint64_t>(seed) + 1; bytes.size() < size;) {
    state = state * 6364136223846793005U + 1442695040888963407U;
    bytes += static_cast<char>(state >> 56);
  }
  return bytes;
}

Files SmallFiles(int version) {
  Files files;
  for (int i = 0; i < 6; ++i) files["file" + std::to_string(i)] = Text(i == version ? version + 100 : i, 700);
  files["list"] = Text(version, 40'000);  // several chunks
  return files;
}

Library::CreateOptions SmallChunks(Env* env) { return {.env = env, .chunking = {4096, 8192, 16384}}; }

std::shared_ptr<Library> OpenOn(Env& env, const std::string& path) { return Must(Library::Open(path, {.env = &env})); }

void PrepareTwo(const std::string& path) {
  Must(Library::Create(path, SmallChunks(&Env::Default())));
  const auto library = OpenOn(Env::Default(), path);
  Must(PublishFiles(library, "debian", SmallFiles(1)));
  Must(PublishFiles(library, "debian", SmallFiles(2)));
}

Status Tag(Library& library, const std::string& action, const std::string& name, bool remove) {
  ASSIGN_OR_RETURN(const auto head, library.snapshot()->Branch("debian"));
  const ObjectId id = head->manifest;
  return library.MoveRefs(action, {{name, remove ? id : ObjectId(), remove ? ObjectId() : id}});
}

Status ImportThird(Env& env, const std::string& path) {
  ASSIGN_OR_RETURN(const auto library, Library::Open(path, {.env = &env}));
  ASSIGN_OR_RETURN([[maybe_unused]] const auto published, PublishFiles(library, "debian", SmallFiles(3)));
  return {};
}

std::vector<Scenario> MakeScenarios() {
  std::vector<Scenario> all;
  all.push_back({"init", [](const std::string&) {},
                 [](Env& env, const std::string& path) -> Status {
                   if (env.Stat(path + "/FORMAT")) return {};
                   return Library::Create(path, SmallChunks(&env));
                 },
                 true});
  all.push_back({"import", PrepareTwo, ImportThird});
  all.push_back({"import_catch_up",
                 [](const std::string& path) {
                   PrepareTwo(path);
                   const auto library = OpenOn(Env::Default(), path);
                   for (int i = 0; i < 66; ++i) Must(Tag(*library, "tag", "debian/t" + std::to_string(i), false));
                 },
                 ImportThird});
  all.push_back({"compact",
                 [](const std::string& path) {
                   PrepareTwo(path);
                   const auto library = OpenOn(Env::Default(), path);
                   for (int i = 4; library->snapshot()->database().shape().level0_files < 7; ++i) {
                     Must(PublishFiles(library, "debian", SmallFiles(i)));
                   }
                 },
                 ImportThird});
  all.push_back({"tag", PrepareTwo, [](Env& env, const std::string& path) -> Status {
                   ASSIGN_OR_RETURN(const auto library, Library::Open(path, {.env = &env}));
                   return Tag(*library, "tag", "debian/released", false);
                 }});
  all.push_back({"branch", PrepareTwo, [](Env& env, const std::string& path) -> Status {
                   ASSIGN_OR_RETURN(const auto library, Library::Open(path, {.env = &env}));
                   ASSIGN_OR_RETURN(const auto head, library->snapshot()->Branch("debian"));
                   return library->MoveRefs(
                       "branch", {{"devel", ObjectId(), head->manifest}, {"devel/v1", ObjectId(), head->manifest}});
                 }});
  all.push_back({"delete_branch", PrepareTwo, [](Env& env, const std::string& path) -> Status {
                   ASSIGN_OR_RETURN(const auto library, Library::Open(path, {.env = &env}));
                   ASSIGN_OR_RETURN(const auto head, library->snapshot()->Branch("debian"));
                   ASSIGN_OR_RETURN(const auto tags, library->snapshot()->Tags("debian"));
                   std::vector<RefMove> moves{{"debian", head->manifest, ObjectId()}};
                   for (const auto& [tag, ref] : tags) moves.push_back({"debian/" + tag, ref.manifest, ObjectId()});
                   return library->MoveRefs("branch", std::move(moves));
                 }});
  all.push_back({"commit",
                 [](const std::string& path) {
                   PrepareTwo(path);
                   const auto library = OpenOn(Env::Default(), path);
                   const auto overlay = Must(Overlay::Create(*library, {.branch = "debian", .mountpoint = "/mnt"}));
                   const auto edited = Must(BranchFs::Open(library, *overlay));
                   PathFs paths(*edited);
                   if (paths.Make("new", FileType::kRegular, 0644) != 0 || paths.Write("new", 0, "a new file") != 0 ||
                       paths.Write("list", 5000, "changed") != 0 || paths.Unlink("file2") != 0) {
                     throw std::runtime_error("the overlay cannot be edited");
                   }
                   Must(edited->Close());
                   Must(overlay->MarkUnmounted(true));
                 },
                 // As the next edit mount of the branch does it: whatever is due.
                 [](Env& env, const std::string& path) -> Status {
                   ASSIGN_OR_RETURN(const auto library, Library::Open(path, {.env = &env}));
                   ASSIGN_OR_RETURN(const auto overlays, ListOverlays(*library));
                   for (const OverlayInfo& info : overlays) {
                     ASSIGN_OR_RETURN([[maybe_unused]] const auto done, CommitOverlay(*library, info.id, {}));
                   }
                   return {};
                 },
                 true});
  // Dead versions, dead chunks in packs that are half alive, and dead packs.
  const auto prepare_dead = [](const std::string& path) {
    PrepareTwo(path);
    const auto library = OpenOn(Env::Default(), path);
    Must(PublishFiles(library, "devel", SmallFiles(4)));
    const ObjectId devel = Must(library->snapshot()->Branch("devel"))->manifest;
    const ObjectId first = Must(library->snapshot()->Tag("debian", "v1"))->manifest;
    Must(library->MoveRefs("delete", {{"devel", devel, ObjectId()}, {"devel/v1", devel, ObjectId()}, {"debian/v1", first, ObjectId()}}));
  };
  const auto collect = [](bool compact) {
    return [compact](Env& env, const std::string& path) -> Status {
      ASSIGN_OR_RETURN(const auto library, Library::Open(path, {.env = &env}));
      GcOptions options;
      options.compact = compact;
      options.compact_level = compact ? 6 : 0;
      options.wait_ms = 0;
      ASSIGN_OR_RETURN([[maybe_unused]] const GcReport report, CollectGarbage(*library, options));
      return {};
    };
  };
  all.push_back({"gc", prepare_dead, collect(false), true});
  all.push_back({"gc_compact", prepare_dead, collect(true), true});
  return all;
}

}  // namespace

const std::vector<Scenario>& Scenarios() {
  static const std::vector<Scenario> scenarios = MakeScenarios();
  return scenarios;
}

const Scenario& FindScenario(const std::string& name) {
  for (const Scenario& scenario : Scenarios()) {
    if (scenario.name == name) return scenario;
  }
  throw std::runtime_error("no scenario " + name);
}

Stage::Stage(const Scenario& scenario) : scenario_(scenario), directory_(temporary_.path()) {
  fs::create_directory(directory_ + "/template");
  scenario.prepare(directory_ + "/template/library");
  if (fs::exists(directory_ + "/template/library")) {
    before_ = Must(ReadWorld(OpenOn(Env::Default(), directory_ + "/template/library")));
  }
  const Run run = Begin("whole");
  Must(scenario.act(*run.env, run.path));
  operations_ = run.env->operations();
  after_ = Must(ReadWorld(OpenOn(*run.env, run.path)));
  End(run);
}

Stage::Run Stage::Begin(const std::string& name) const {
  const std::string root = directory_ + "/" + name;
  fs::copy(directory_ + "/template", root, fs::copy_options::recursive);
  return {std::make_unique<FaultEnv>(root), root + "/library"};
}

void Stage::End(const Run& run) const { fs::remove_all(fs::path(run.path).parent_path()); }

std::string Stage::Check(const Run& run, bool done) const {
  const auto check = [&]() -> Result<std::string> {
    if (scenario_.name == "init" && !done && !run.env->Stat(run.path + "/FORMAT")) {
      TRY(scenario_.act(*run.env, run.path));  // there is no library, and one can be made
    }
    {
      ASSIGN_OR_RETURN(const auto library, Library::Open(run.path, {.env = run.env.get()}));
      ASSIGN_OR_RETURN(const World world, ReadWorld(library));
      if (world != after_ && (done || world != before_)) return "neither world stands: " + Describe(world);
      ASSIGN_OR_RETURN(const std::string findings, FsckFindings(*library));
      if (!findings.empty()) return "fsck: " + findings;
    }
    if (scenario_.repeatable) {
      TRY(scenario_.act(*run.env, run.path));
      ASSIGN_OR_RETURN(const World world, ReadWorld(OpenOn(*run.env, run.path)));
      if (world != after_) return "done again it is another world: " + Describe(world);
    }
    ASSIGN_OR_RETURN(const auto library, Library::Open(run.path, {.env = run.env.get()}));
    ASSIGN_OR_RETURN(World expected, ReadWorld(library));
    const Files files = SmallFiles(50);
    ASSIGN_OR_RETURN(const Published next, PublishFiles(library, "next", files));
    expected["next"] = expected["next/" + next.tag] = files;
    ASSIGN_OR_RETURN(const World world, ReadWorld(library));
    if (world != expected) return "the next publish makes another world: " + Describe(world);
    ASSIGN_OR_RETURN(const auto staged, run.env->List(library->staging_path()));
    if (!staged.empty()) return "left in staging/: " + staged[0];
    ASSIGN_OR_RETURN(const std::string findings, FsckFindings(*library));
    if (!findings.empty()) return "fsck after the next publish: " + findings;
    return "";
  }();
  return check ? *check : check.error().message;
}

}  // namespace mirage::testing
