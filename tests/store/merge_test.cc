// Three-way merges: field by field, conflicts by kind, hard-link groups, and random edits against a merge path by path.
#include "store/merge.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

#include "store/tree_writer.h"
#include "tests/testing/memory_objects.h"
#include "tests/testing/store_fixture.h"

namespace mirage {
namespace {

using testing::Must;
using Tree = std::map<std::string, Entry>;  // directories too; no root
using Groups = std::vector<std::vector<std::string>>;
using Lines = std::vector<std::string>;

Entry Make(FileType type, const std::string& bytes = "") {
  Entry entry;
  entry.type = type;
  entry.mode = 0644;
  if (type == FileType::kRegular) {
    entry.id = HashBytes(bytes);
    entry.size = bytes.size();
  } else if (type == FileType::kSymlink) {
    entry.target = bytes;
    entry.size = bytes.size();
  }
  return entry;
}
Entry File(const std::string& bytes = "") { return Make(FileType::kRegular, bytes); }
Entry Directory() { return Make(FileType::kDirectory); }

std::string Canonical(std::string path) {
  std::replace(path.begin(), path.end(), '/', '\0');
  return path;
}

class MergeTest : public ::testing::Test {
 protected:
  Manifest Write(const Tree& tree, Groups groups = {}) {
    std::map<std::string, std::pair<std::string, Entry>> ordered;
    for (const auto& [path, entry] : tree) ordered[Canonical(path)] = {path, entry};
    TreeWriter writer(objects_);
    Must(writer.Add("", Directory()));
    for (const auto& [key, item] : ordered) Must(writer.Add(item.first, item.second));
    Manifest manifest;
    manifest.root = Must(writer.Finish());
    manifest.links = Must(WriteLinks(objects_, std::move(groups)));
    manifest.file_count = writer.file_count();
    manifest.total_bytes = writer.total_bytes();
    return manifest;
  }
  MergedVersion Merge(const Manifest& base, const Manifest& ours, const Manifest& theirs,
                      MergeFavor favor = MergeFavor::kOurs) {
    return Must(MergeVersions(objects_, objects_, base, ours, theirs, favor));
  }
  // Whether the merged version is `tree` with `groups`, its totals too.
  void ExpectIs(const MergedVersion& merged, const Tree& tree, const Groups& groups = {}) {
    const Manifest expected = Write(tree, groups);
    EXPECT_EQ(merged.manifest.root, expected.root);
    EXPECT_EQ(merged.manifest.links, expected.links);
    EXPECT_EQ(merged.manifest.file_count, expected.file_count);
    EXPECT_EQ(merged.manifest.total_bytes, expected.total_bytes);
  }
  static Lines Conflicts(const MergedVersion& merged) {
    constexpr std::string_view kLetters = "MmTADL";
    Lines lines;
    for (const auto& conflict : merged.conflicts) lines.push_back(fmt::format("{} {}", kLetters[conflict.kind], conflict.path));
    return lines;
  }
  ObjectId Xattrs(const XattrSet& set) { return Must(objects_.WriteObject(ObjectKind::kXattrs, Must(EncodeXattrs(set)))); }

  testing::MemoryObjects objects_;
};

TEST_F(MergeTest, DisjointChangesOfOneDirectory) {
  const Tree base{{"etc", Directory()}, {"etc/a", File("1")}, {"etc/b", File("1")}, {"etc/c", File("1")}, {"gone", Directory()}, {"gone/x", File("22")}};
  Tree ours = base, theirs = base, both = base;
  ours["etc/a"] = both["etc/a"] = File("ours");
  ours["etc/new"] = both["etc/new"] = File("333");
  ours["etc"].mtime_sec = 5;
  theirs["etc/b"] = both["etc/b"] = File("theirs");
  theirs["etc"].mtime_sec = both["etc"].mtime_sec = 7;
  for (Tree* tree : {&theirs, &both}) {
    tree->erase("etc/c");
    tree->erase("gone");
    tree->erase("gone/x");
    (*tree)["more"] = Directory();
    (*tree)["more/y"] = File("4444");
  }
  const auto merged = Merge(Write(base), Write(ours), Write(theirs));
  EXPECT_TRUE(merged.conflicts.empty());
  ExpectIs(merged, both);
  ExpectIs(Merge(Write(base), Write(theirs), Write(ours)), both);
  ExpectIs(Merge(Write(base), Write(ours), Write(ours)), ours);
}

TEST_F(MergeTest, FieldsOfOneFile) {
  Entry base = File("text");
  base.mtime_sec = 1;
  base.xattrs = Xattrs({{"user.a", "1"}, {"user.b", "1"}});
  Entry ours = base, theirs = base, both = base;
  ours.id = both.id = HashBytes("longer text");
  ours.size = both.size = 11;
  ours.mtime_sec = both.mtime_sec = 3;
  ours.xattrs = Xattrs({{"user.a", "2"}, {"user.b", "1"}});
  theirs.mode = both.mode = 0600;
  theirs.uid = both.uid = 7;
  theirs.mtime_sec = 9;  // touched: the time goes with the content
  theirs.xattrs = Xattrs({{"user.a", "1"}, {"user.c", "3"}});
  both.xattrs = Xattrs({{"user.a", "2"}, {"user.c", "3"}});
  const auto merged = Merge(Write({{"f", base}}), Write({{"f", ours}}), Write({{"f", theirs}}));
  EXPECT_TRUE(merged.conflicts.empty());
  ExpectIs(merged, {{"f", both}});
  // A mode and its access list are one: a chmod and a setfacl conflict.
  theirs.xattrs = base.xattrs;
  ours.xattrs = Xattrs({{"system.posix_acl_access", "list"}, {"user.a", "1"}, {"user.b", "1"}});
  EXPECT_EQ(Conflicts(Merge(Write({{"f", base}}), Write({{"f", ours}}), Write({{"f", theirs}}))), Lines{"m f"});
}

TEST_F(MergeTest, EachKindOfConflict) {
  const Tree base{{"content", File("1")}, {"d", Directory()}, {"d/x", File("1")}, {"gone", Directory()}, {"gone/in", File("1")},
                  {"link", Make(FileType::kSymlink, "a")}, {"meta", File("1")}, {"type", File("1")}};
  Tree ours = base, theirs = base;
  ours["content"] = File("ours");
  theirs["content"] = File("theirs");
  ours["d"].mode = 0700;
  theirs["d"].mode = 0711;
  theirs["d/y"] = File("y");
  ours.erase("gone");
  ours.erase("gone/in");
  theirs["gone/in"] = File("2");
  ours["link"] = Make(FileType::kSymlink, "b");
  theirs["link"] = Make(FileType::kSymlink, "c");
  ours["meta"].uid = 1;
  theirs["meta"].uid = 2;
  ours["new"] = File("ours");
  theirs["new"] = File("theirs");
  ours["type"] = Directory();
  theirs["type"].mode = 0600;
  const auto merged = Merge(Write(base), Write(ours), Write(theirs));
  EXPECT_EQ(Conflicts(merged), (Lines{"M content", "m d", "D gone", "M link", "m meta", "A new", "T type"}));
  EXPECT_FALSE(merged.conflicts[2].ours);
  EXPECT_TRUE(merged.conflicts[2].theirs && merged.conflicts[2].base);
  Tree favored = ours;
  favored["d/y"] = File("y");  // what does not conflict is merged all the same
  ExpectIs(merged, favored);
  favored = theirs;
  ExpectIs(Merge(Write(base), Write(ours), Write(theirs), MergeFavor::kTheirs), favored);
}

TEST_F(MergeTest, HardLinkGroups) {
  const Tree base{{"a", File("1")}, {"b", File("1")}, {"c", File("1")}, {"d", File("2")}};
  Tree ours = base, theirs = base, both = base;
  // Both link a new name to the same file; one of them changes its mode under all its names.
  for (Tree* tree : {&ours, &both}) (*tree)["o"] = (*tree)["a"];
  for (Tree* tree : {&theirs, &both}) (*tree)["t"] = (*tree)["a"];
  auto merged = Merge(Write(base, {{"a", "b"}}), Write(ours, {{"a", "b", "o"}}), Write(theirs, {{"a", "b", "t"}}));
  EXPECT_TRUE(merged.conflicts.empty());
  ExpectIs(merged, both, {{"a", "b", "o", "t"}});
  // One breaks a link by writing a new file, the other deletes a third name.
  ours = base;
  ours["b"] = File("own");
  theirs = both = base;
  theirs.erase("c");
  both = ours;
  both.erase("c");
  merged = Merge(Write(base, {{"a", "b", "c"}}), Write(ours, {{"a", "c"}}), Write(theirs, {{"a", "b"}}));
  EXPECT_TRUE(merged.conflicts.empty());
  ExpectIs(merged, both);
  // A link to what the other side changed: the new name would be a copy of the old bytes.
  ours = base;
  ours["new"] = ours["d"];
  theirs = base;
  theirs["d"] = File("changed");
  merged = Merge(Write(base), Write(ours, {{"d", "new"}}), Write(theirs));
  EXPECT_EQ(Conflicts(merged), Lines{"L d"});
  both = ours;
  both["d"] = File("changed");
  ExpectIs(merged, both);
  // A name that one side linked and the other deleted: the file lives on under the new one.
  theirs = base;
  theirs.erase("d");
  merged = Merge(Write(base), Write(ours, {{"d", "new"}}), Write(theirs));
  EXPECT_TRUE(merged.conflicts.empty());
  both = ours;
  both.erase("d");
  ExpectIs(merged, both);
}

// Whole entries path by path; nullopt where that has no answer or gives no tree.
std::optional<Tree> MergeByPath(const Tree& base, const Tree& ours, const Tree& theirs) {
  Tree merged;
  std::map<std::string, int> paths;
  for (const Tree* tree : {&base, &ours, &theirs}) {
    for (const auto& [path, entry] : *tree) paths[path];
  }
  for (const auto& [path, unused] : paths) {
    const auto at = [&, &name = path](const Tree& tree) {
      const auto found = tree.find(name);
      return found == tree.end() ? std::nullopt : std::optional(found->second);
    };
    const auto b = at(base), o = at(ours), t = at(theirs);
    if (o != t && o != b && t != b) return std::nullopt;
    if (const auto& picked = o == b ? t : o) merged[path] = *picked;
  }
  for (const auto& [path, entry] : merged) {
    const size_t slash = path.rfind('/');
    if (slash == std::string::npos) continue;
    const auto parent = merged.find(path.substr(0, slash));
    if (parent == merged.end() || !parent->second.is_directory()) return std::nullopt;
  }
  return merged;
}

TEST_F(MergeTest, RandomEditsAgainstAMergePathByPath) {
  int clean = 0;
  for (unsigned seed = 1; seed <= 100; ++seed) {
    SCOPED_TRACE(fmt::format("seed {}", seed));
    std::mt19937 random(seed);
    const auto edit = [&](Tree tree, size_t count) {
      for (; count > 0; --count) {
        std::string path;
        for (size_t depth = 1 + random() % 4; depth > 0; --depth) {
          path += (path.empty() ? "" : "/") + std::string(1, "abcdefgh"[random() % 8]);
          const auto [at, added] = tree.try_emplace(path, Directory());
          if (!at->second.is_directory() || (added && depth == 1 && random() % 3)) {
            at->second = File(std::to_string(random() % 5));
            break;
          }
        }
        if (random() % 4 == 0) tree[path].uid = static_cast<uint32_t>(random() % 3);
        if (random() % 5 == 0) {
          std::erase_if(tree, [&](const auto& item) { return item.first == path || item.first.starts_with(path + "/"); });
        }
      }
      return tree;
    };
    const Tree base = edit({}, 60), ours = edit(base, random() % 6), theirs = edit(base, random() % 6);
    const auto merged = Merge(Write(base), Write(ours), Write(theirs));
    const auto expected = MergeByPath(base, ours, theirs);
    if (expected && merged.conflicts.empty()) {
      ++clean;
      ExpectIs(merged, *expected);
      ExpectIs(Merge(Write(base), Write(theirs), Write(ours)), *expected);
    } else if (!expected && merged.conflicts.empty()) {
      // Fields merged where whole entries do not: the same from the other side.
      EXPECT_EQ(Merge(Write(base), Write(theirs), Write(ours)).manifest.root, merged.manifest.root);
    } else if (expected) {
      // Only a directory that one side deleted whole, while the other changed and deleted in it, is more careful.
      for (const auto& conflict : merged.conflicts) EXPECT_EQ(conflict.kind, MergeConflict::kDeleted);
    }
  }
  EXPECT_GT(clean, 50);
}

}  // namespace
}  // namespace mirage
