// Differences of two versions: what is reported, in which order, and against a brute-force comparison; hard links too.
#include "store/diff.h"

#include <algorithm>
#include <random>

#include "store/tree_writer.h"
#include "tests/testing/store_fixture.h"

namespace mirage {
namespace {

using testing::LibraryTest;
using testing::Must;
using Tree = std::map<std::string, Entry>;  // directories too; no root
using Groups = std::vector<std::vector<std::string>>;

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

class DiffTest : public LibraryTest {
 protected:
  DiffTest() : transaction_(Must(library_->Begin("test"))) {}

  // Staged and published together by Publish(), since contents are not read here.
  Manifest Write(const Tree& tree, Groups groups = {}) {
    std::map<std::string, std::pair<std::string, Entry>> ordered;
    for (const auto& [path, entry] : tree) ordered[Canonical(path)] = {path, entry};
    TreeWriter writer(*transaction_);
    Must(writer.Add("", Directory()));
    for (const auto& [key, item] : ordered) Must(writer.Add(item.first, item.second));
    Manifest manifest;
    manifest.root = Must(writer.Finish());
    manifest.links = Must(WriteLinks(*transaction_, std::move(groups)));
    manifest.branch = "b";
    return manifest;
  }
  void PublishAll(const Manifest& any) {
    NewVersion version;
    version.manifest = any;
    Must(transaction_->Publish(std::move(version)));
    Must(library_->Refresh());
  }

  // "M etc/passwd", and " links" behind it.
  std::vector<std::string> Diff(const Manifest& a, const Manifest& b, std::string_view under = "") {
    std::vector<std::string> lines;
    const TreeReader reader(library_);
    Must(DiffVersions(reader, a, b, under, [&](const Change& change) -> Status {
      EXPECT_EQ(change.before.has_value(), change.kind != ChangeKind::kAdded);
      EXPECT_EQ(change.after.has_value(), change.kind != ChangeKind::kDeleted);
      const char* links = change.links_changed ? " links" : "";
      lines.push_back(fmt::format("{} {}{}", static_cast<char>(change.kind), change.path, links));
      return {};
    }));
    return lines;
  }
  using Lines = std::vector<std::string>;

  std::unique_ptr<Transaction> transaction_;
};

TEST_F(DiffTest, KindsAndOrder) {
  Tree a{{"same", Directory()}, {"same/x", File("x")},
         {"d", Directory()},    {"d/file", File("1")}, {"d/gone", Directory()}, {"d/gone/y", File("y")},
         {"d-", File("1")},     {"chmod", File("c")},  {"dir", Directory()},    {"dir/in", File("")},
         {"kind", File("k")},   {"kind2", Directory()}, {"kind2/z", File("z")},
         {"link", Make(FileType::kSymlink, "a")}};
  Tree b = a;
  b["d/file"] = File("2");
  b.erase("d/gone");
  b.erase("d/gone/y");
  b["d-"] = File("2");
  b["chmod"].mode = 0600;
  b["dir"].mode = 0700;
  b["kind"] = Directory();
  b["kind/new"] = File("n");
  b.erase("kind2/z");
  b["kind2"] = File("");
  b["link"] = Make(FileType::kSymlink, "b");
  b["new"] = Directory();
  b["new/a"] = Directory();
  b["new/a/b"] = File("");
  const Manifest before = Write(a), after = Write(b);
  PublishAll(after);
  EXPECT_EQ(Diff(before, after),
            (Lines{"m chmod", "M d/file", "D d/gone", "D d/gone/y", "M d-", "m dir", "T kind", "A kind/new", "T kind2",
                   "D kind2/z", "M link", "A new", "A new/a", "A new/a/b"}));
  EXPECT_TRUE(Diff(before, before).empty());
  EXPECT_EQ(Diff(before, after, "/d/"), (Lines{"M d/file", "D d/gone", "D d/gone/y"}));
  EXPECT_EQ(Diff(before, after, "d/gone/y"), (Lines{"D d/gone/y"}));
  EXPECT_EQ(Diff(before, after, "new/a"), (Lines{"A new/a", "A new/a/b"}));
  EXPECT_TRUE(Diff(before, after, "same").empty());
  const TreeReader reader(library_);
  const auto missing = DiffVersions(reader, before, after, "nowhere", [](const Change&) -> Status { return {}; });
  EXPECT_EQ(missing.error().code, ENOENT);
  Manifest root = before;
  root.root.mode = 0711;
  EXPECT_EQ(Diff(before, root), Lines{"m "});
}

TEST_F(DiffTest, HardLinkGroups) {
  const Tree tree{{"a", File("1")},      {"b", File("1")},   {"d", Directory()},   {"d/c", File("1")},
                  {"d-", File("1")},     {"deep", Directory()}, {"deep/er", Directory()}, {"deep/er/x", File("1")}};
  const Manifest none = Write(tree), two = Write(tree, {{"a", "d/c"}}),
                 three = Write(tree, {{"a", "d/c", "deep/er/x"}}),
                 other = Write(tree, {{"a", "b"}, {"d/c", "deep/er/x"}});
  PublishAll(none);
  EXPECT_EQ(none.root, three.root);  // links are beside the tree
  EXPECT_EQ(Diff(none, two), (Lines{"m a links", "m d/c links"}));
  EXPECT_EQ(Diff(two, none), (Lines{"m a links", "m d/c links"}));
  EXPECT_EQ(Diff(two, three), (Lines{"m a links", "m d/c links", "m deep/er/x links"}));
  EXPECT_EQ(Diff(three, other), (Lines{"m a links", "m b links", "m d/c links", "m deep/er/x links"}));
  EXPECT_EQ(Diff(two, three, "deep"), (Lines{"m deep/er/x links"}));
}

TEST_F(DiffTest, AgainstBruteForce) {
  struct Case {
    unsigned seed;
    Tree a, b;
    Manifest before, after;
  };
  std::vector<Case> cases;
  for (unsigned seed = 1; seed <= 25; ++seed) {
    std::mt19937 random(seed);
    const auto grow = [&](Tree& tree, size_t count) {
      for (; count > 0; --count) {
        std::string path;
        // Short names with bytes on both sides of '/', so that the order matters.
        for (size_t depth = 1 + random() % 4; depth > 0; --depth) {
          path += (path.empty() ? "" : "/") + std::string(1, "ab-z"[random() % 4]) + (random() % 2 ? "-" : "");
          const auto [at, added] = tree.try_emplace(path, Directory());
          if (!added && !at->second.is_directory()) break;
          if (added && depth == 1 && random() % 3) at->second = File(std::to_string(random() % 3));
        }
      }
    };
    const auto remove = [&](Tree& tree) {
      const std::string path = std::next(tree.begin(), static_cast<ptrdiff_t>(random() % tree.size()))->first;
      std::erase_if(tree, [&](const auto& item) { return item.first == path || item.first.starts_with(path + "/"); });
    };
    Case next{seed, {}, {}, {}, {}};
    grow(next.a, 1 + random() % 200);
    next.b = next.a;
    for (size_t edits = random() % 10; edits > 0; --edits) {
      if (!next.b.empty() && random() % 2) remove(next.b);
      grow(next.b, random() % 5);
      if (next.b.empty()) continue;
      Entry& entry = std::next(next.b.begin(), static_cast<ptrdiff_t>(random() % next.b.size()))->second;
      if (random() % 2) entry.uid = 7;
    }
    next.before = Write(next.a);
    next.after = Write(next.b);
    cases.push_back(std::move(next));
  }
  PublishAll(cases.front().before);
  for (const Case& c : cases) {
    std::map<std::string, std::string> expected;
    for (const auto& [path, entry] : c.a) {
      const auto other = c.b.find(path);
      if (other == c.b.end()) {
        expected[Canonical(path)] = "D " + path;
      } else if (other->second != entry) {
        const bool type = other->second.type != entry.type;
        expected[Canonical(path)] = (type ? "T " : other->second.id != entry.id ? "M " : "m ") + path;
      }
    }
    for (const auto& [path, entry] : c.b) {
      if (!c.a.contains(path)) expected[Canonical(path)] = "A " + path;
    }
    Lines lines;
    for (const auto& [key, line] : expected) lines.push_back(line);
    EXPECT_EQ(Diff(c.before, c.after), lines) << "seed " << c.seed;
  }
}

}  // namespace
}  // namespace mirage
