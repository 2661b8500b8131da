// Trees: written in canonical order, edited, read by path, walked; and the hard-link groups beside them.
#include <algorithm>
#include <random>

#include "store/tree_reader.h"
#include "store/tree_writer.h"
#include "tests/testing/memory_objects.h"
#include "tests/testing/store_fixture.h"

namespace mirage {
namespace {

using testing::LibraryTest;
using testing::MemoryObjects;
using testing::Must;

Entry Directory(uint16_t mode = 0755) {
  Entry entry;
  entry.type = FileType::kDirectory;
  entry.mode = mode;
  return entry;
}
Entry File(const std::string& bytes) {
  Entry entry;
  entry.mode = 0644;
  entry.size = bytes.size();
  entry.id = HashBytes(bytes);
  return entry;
}
Entry Link(const std::string& target) {
  Entry entry;
  entry.type = FileType::kSymlink;
  entry.mode = 0777;
  entry.size = target.size();
  entry.target = target;
  return entry;
}

TEST(TreeWriter, CountsAndFillsInDirectories) {
  MemoryObjects objects;
  TreeWriter tree(objects);
  Must(tree.Add("", Directory()));
  Must(tree.Add("a", Directory(0700)));
  Must(tree.Add("a/deep", Directory()));
  Must(tree.Add("a/deep/er", Directory()));
  Must(tree.Add("a/x", File("12345")));
  Must(tree.Add("a-b", Link("a")));
  Must(tree.Add("b", Directory()));
  Must(tree.Add("z", File("")));
  const Entry root = Must(tree.Finish());
  EXPECT_EQ(tree.file_count(), 7U);
  EXPECT_EQ(tree.total_bytes(), 5U);
  EXPECT_EQ(root.size, 2U);
  const MapReader reader(objects, ObjectKind::kTree, 1 << 20);
  const Entry a = Must(DecodeEntry(*Must(reader.Find(root.id, "a"))));
  EXPECT_EQ(a.size, 1U);
  EXPECT_EQ(a.mode, 0700);
  const Entry deep = Must(DecodeEntry(*Must(reader.Find(a.id, "deep"))));
  EXPECT_EQ(Must(DecodeEntry(*Must(reader.Find(deep.id, "er")))).size, 0U);
  EXPECT_EQ(Must(reader.Count(root.id)), 4U);
}

TEST(TreeWriter, RefusesAnyOtherOrder) {
  using Paths = std::vector<std::string>;  // directories end with '/', the root is "/"
  const auto refused = [](const Paths& paths) {
    MemoryObjects objects;
    TreeWriter tree(objects);
    for (std::string path : paths) {
      const bool is_directory = path.ends_with('/');
      if (is_directory) path.pop_back();
      const auto added = tree.Add(path, is_directory ? Directory() : File(path));
      if (!added) return &path == &paths.back() || added.error().code == EINVAL;
    }
    return !tree.Finish().has_value();
  };
  EXPECT_FALSE(refused({"/", "a/", "a/x", "a-b", "b"}));
  EXPECT_TRUE(refused({}));
  EXPECT_TRUE(refused({"a"}));                                // no root
  EXPECT_TRUE(refused({"/", "/"}));                           // two
  EXPECT_TRUE(refused({"/", "b", "a"}));
  EXPECT_TRUE(refused({"/", "a", "a"}));
  EXPECT_TRUE(refused({"/", "a/", "a-b", "a/x"}));            // a was left
  EXPECT_TRUE(refused({"/", "a/", "b/", "a/"}));
  EXPECT_TRUE(refused({"/", "a/x"}));                         // no parent
  EXPECT_TRUE(refused({"/", "a", "a/x"}));                    // a file
  EXPECT_TRUE(refused({"/", "a/", "a/b/c"}));
  for (const char* bad : {".", "..", "a//b", "/a", "a/.."}) EXPECT_TRUE(refused({"/", "a/", bad})) << bad;
}

TEST(TreeWriter, RefusesBadEntries) {
  MemoryObjects objects;
  TreeWriter tree(objects);
  Must(tree.Add("", Directory()));
  Entry bad = File("x");
  bad.mtime_nsec = 2'000'000'000;
  EXPECT_EQ(tree.Add("a", bad).error().code, EINVAL);
  bad = File("x");
  bad.target = "belongs to a symlink";
  EXPECT_FALSE(tree.Add("a", bad));
  bad = Directory();
  bad.id = HashBytes("x");
  EXPECT_FALSE(tree.Add("a", bad));
}

TEST(TreeWriter, DeepTrees) {
  MemoryObjects objects;
  TreeWriter tree(objects);
  Must(tree.Add("", Directory()));
  std::string path = "d";
  for (int depth = 0; depth < 3000; ++depth, path += "/d") Must(tree.Add(path, Directory()));
  EXPECT_EQ(Must(tree.Finish()).size, 1U);
  EXPECT_EQ(tree.file_count(), 3000U);
}

TEST(EditTree, EqualsATreeBuiltAnew) {
  for (unsigned seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    MemoryObjects objects;
    std::map<std::string, Entry> names;
    const size_t count = random() % (seed % 2 ? 20 : 3000);
    const auto some_entry = [&] {
      Entry entry = random() % 3 ? File(std::to_string(random())) : Directory();
      if (entry.is_directory()) entry.id = HashBytes(std::to_string(random()));
      return entry;
    };
    for (size_t i = 0; i < count; ++i) names[std::to_string(random() % 10'000)] = some_entry();
    const auto build = [&] {
      MapBuilder builder(objects, ObjectKind::kTree);
      for (const auto& [name, entry] : names) Must(builder.Add(name, EncodeEntry(entry)));
      return Must(builder.Finish());
    };
    const auto subdirectories = [&] {
      return static_cast<uint64_t>(
          std::count_if(names.begin(), names.end(), [](const auto& named) { return named.second.is_directory(); }));
    };
    const ObjectId base = count == 0 ? ObjectId{} : build();
    const uint64_t base_subdirectories = subdirectories();
    std::map<std::string, std::optional<Entry>> edits;
    for (size_t i = random() % 10; i > 0; --i) {
      const std::string name = std::to_string(random() % 10'000);
      edits[name] = random() % 2 ? std::optional(some_entry()) : std::nullopt;
    }
    for (size_t i = random() % 10; i > 0 && !names.empty(); --i) {
      edits[std::next(names.begin(), static_cast<ptrdiff_t>(random() % names.size()))->first] =
          random() % 2 ? std::optional(some_entry()) : std::nullopt;
    }
    std::vector<TreeEdit> list;
    for (const auto& [name, entry] : edits) {
      list.push_back({name, entry});
      if (entry) {
        names[name] = *entry;
      } else {
        names.erase(name);
      }
    }
    const MapReader trees(objects, ObjectKind::kTree, 1 << 20);
    const EditedTree edited = Must(EditTree(objects, trees, base, base_subdirectories, list));
    EXPECT_EQ(edited.id, build());
    EXPECT_EQ(edited.subdirectories, subdirectories());
  }
}

TEST(WriteLinks, Groups) {
  MemoryObjects objects;
  EXPECT_TRUE(Must(WriteLinks(objects, {})).IsZero());
  EXPECT_FALSE(WriteLinks(objects, {{"alone"}}));
  EXPECT_FALSE(WriteLinks(objects, {{"a", "b"}, {"b", "c"}}));
  const ObjectId id = Must(WriteLinks(objects, {{"z", "b/c"}, {"x", "a", "y"}}));
  EXPECT_EQ(id, Must(WriteLinks(objects, {{"a", "y", "x"}, {"b/c", "z"}})));
  const MapReader links(objects, ObjectKind::kLinks, 1 << 20);
  EXPECT_EQ(Must(links.Find(id, "y")), "a");
  EXPECT_EQ(Must(links.Find(id, "a")), "a");
  EXPECT_EQ(Must(links.Find(id, "z")), "b/c");
  EXPECT_EQ(Must(links.Count(id)), 5U);
}

class TreeReaderTest : public LibraryTest {
 protected:
  // Publishes the tree (path -> entry, canonical order is made here) and its links.
  ObjectId PublishTree(std::map<std::string, Entry> entries, std::vector<std::vector<std::string>> groups = {}) {
    const auto transaction = Must(library_->Begin("test"));
    std::string target(400, 't');
    Must(transaction->contents().Put(target, [&](const ObjectId& id, uint64_t) { long_target_ = id; }));
    Must(transaction->contents().Flush());
    std::vector<std::pair<std::string, Entry>> ordered(entries.begin(), entries.end());
    std::sort(ordered.begin(), ordered.end(), [](const auto& a, const auto& b) {
      return std::lexicographical_compare(
          a.first.begin(), a.first.end(), b.first.begin(), b.first.end(),
          [](char x, char y) { return (x == '/' ? 0 : x) < (y == '/' ? 0 : y); });
    });
    TreeWriter tree(*transaction);
    Must(tree.Add("", Directory()));
    for (const auto& [path, entry] : ordered) Must(tree.Add(path, entry));
    NewVersion version;
    version.manifest.root = Must(tree.Finish());
    version.manifest.links = Must(WriteLinks(*transaction, std::move(groups)));
    version.manifest.branch = "b";
    if (const auto head = Must(library_->snapshot()->Branch("b"))) {
      version.expected_head = head->manifest;
      version.manifest.parents = {head->manifest};
    }
    const ObjectId id = Must(transaction->Publish(std::move(version))).manifest;
    Must(library_->Refresh());
    return id;
  }
  Manifest Get(const ObjectId& id) { return Must(ReadManifest(*library_->snapshot(), id)); }

  ObjectId long_target_;
};

TEST_F(TreeReaderTest, FindsByPath) {
  const Manifest manifest =
      Get(PublishTree({{"etc", Directory()}, {"etc/a", File("")}, {"etc/link", Link("a")}, {"z", File("")}}));
  const TreeReader reader(library_);
  const auto code = [&](std::string_view path) {
    const auto found = reader.Find(manifest.root, path);
    return found ? 0 : found.error().code;
  };
  EXPECT_EQ(Must(reader.Find(manifest.root, "")), manifest.root);
  EXPECT_EQ(Must(reader.Find(manifest.root, "/")), manifest.root);
  EXPECT_EQ(Must(reader.Find(manifest.root, "//etc/./a")), File(""));
  EXPECT_EQ(Must(reader.Find(manifest.root, "/etc/link")).target, "a");
  EXPECT_EQ(code("/etc/b"), ENOENT);
  EXPECT_EQ(code("/none/b"), ENOENT);
  EXPECT_EQ(code("/z/b"), ENOTDIR);
  EXPECT_EQ(code("/etc/link/b"), ENOTDIR);
  EXPECT_EQ(code("/etc/../z"), EINVAL);
}

TEST_F(TreeReaderTest, WalksInCanonicalOrder) {
  std::map<std::string, Entry> entries{{"a", Directory()}, {"a/x", File("")}, {"a-b", File("")},
                                       {"big", Directory()}, {"empty", Directory()}, {"z", Link("a")}};
  for (int i = 0; i < 1024; ++i) entries[fmt::format("big/{:04}", i)] = File("");  // several batches, the last one full
  const Manifest manifest = Get(PublishTree(entries));
  const TreeReader reader(library_);
  std::vector<std::string> paths;
  Must(reader.Walk(manifest.root, [&](const std::string& path, const Entry&) -> Result<bool> {
    paths.push_back(path);
    return path != "big";
  }));
  EXPECT_EQ(paths, (std::vector<std::string>{"a", "a/x", "a-b", "big", "empty", "z"}));
  size_t count = 0;
  Must(reader.Walk(manifest.root, [&](const std::string& path, const Entry& entry) -> Result<bool> {
    EXPECT_EQ(entries.at(path).type, entry.type);
    ++count;
    return true;
  }));
  EXPECT_EQ(count, entries.size());
  const auto failed = reader.Walk(manifest.root, [](auto&, auto&) -> Result<bool> { return Fail(EINTR, "stop"); });
  EXPECT_EQ(failed.error().code, EINTR);
  EXPECT_EQ(Must(reader.Count(Must(reader.Find(manifest.root, "big")).id)), 1024U);
  EXPECT_EQ(Must(reader.List(manifest.root.id)).size(), 5U);
}

TEST_F(TreeReaderTest, SymlinksAndLinkGroups) {
  PublishTree({});
  Entry long_link;
  long_link.type = FileType::kSymlink;
  long_link.size = 400;
  long_link.id = long_target_;
  const Manifest manifest = Get(PublishTree(
      {{"a", File("")}, {"b", File("")}, {"c", File("")}, {"l", long_link}, {"s", Link("t")}}, {{"c", "a"}}));
  const TreeReader reader(library_);
  EXPECT_EQ(Must(reader.SymlinkTarget(Must(reader.Find(manifest.root, "l")))), std::string(400, 't'));
  EXPECT_EQ(Must(reader.SymlinkTarget(Must(reader.Find(manifest.root, "s")))), "t");
  EXPECT_FALSE(reader.SymlinkTarget(manifest.root));
  EXPECT_EQ(Must(reader.LinkGroup(manifest.links, "c")), "a");
  EXPECT_FALSE(Must(reader.LinkGroup(manifest.links, "b")));
  EXPECT_FALSE(Must(reader.LinkGroup({}, "c")));
  EXPECT_EQ(Must(reader.LinkGroups(manifest.links)),
            (std::map<std::string, std::vector<std::string>>{{"a", {"a", "c"}}}));
  std::string bytes;
  EXPECT_EQ(reader.Read(manifest.root, 0, 1, &bytes).error().code, EISDIR);
}

}  // namespace
}  // namespace mirage
