// Every kind of file of a library, with a bit flipped, cut short, removed or swapped for another: fsck finds it and
// names what it hits; what is not hit still reads; what is hit gives EIO, never wrong bytes, and the refs are never
// older ones.
//
// Sampled in the default tier: MIRAGE_SEED chooses the places. EveryByte and EveryLength run in the full tier.
#include <random>

#include "tests/damage/damaged_library.h"

namespace mirage {
namespace {

namespace fs = std::filesystem;
using testing::Checking;
using testing::DamagedLibraryTest;
using testing::Must;
using testing::Reading;

unsigned Seed() {
  const char* given = std::getenv("MIRAGE_SEED");
  return given ? static_cast<unsigned>(std::stoul(given)) : std::random_device()();
}

class Files : public DamagedLibraryTest {
 protected:
  Files() {
    Fill();
    Look();
  }
  // `small`: a library of a few KiB.
  explicit Files(bool small) {
    if (small) FillSmall();
    Look();
  }
  void Look() {
    before_ = Read(path());
    for (const auto& item : fs::recursive_directory_iterator(path())) {
      const std::string file = item.path().string().substr(path().size() + 1);
      if (item.is_regular_file() && !file.starts_with("locks/")) files_.push_back(file);
    }
    std::sort(files_.begin(), files_.end());
  }

  // Files of RocksDB that hold nothing of ours, the reserve, and the policy, whose text is its user's and has no checksum.
  static bool HoldsNothing(const std::string& file) {
    return file == "mirage.yaml" || file == "reserve" || file.starts_with("db/LOG") || file.starts_with("db/OPTIONS") || file == "db/LOCK" ||
           file == "db/IDENTITY" || (file.ends_with(".log") && file != "refs.log");
  }

  // `must_find`: fsck has to have a word on it.
  void Examine(const std::string& what, bool must_find) {
    SCOPED_TRACE(what);
    const Checking checking = Check(path());
    const Reading reading = Read(path());
    if (reading.open_error.empty()) {
      // Never a rollback: the refs are as they were, or fsck tells of the version that no ref names.
      if (reading.refs != before_.refs) {
        EXPECT_GT(checking.findings.size(), 0U) << "refs moved";
      }
      for (const auto& [key, content] : reading.files) {
        const std::string name = key.substr(0, key.find(':'));
        if (reading.refs.at(name) != before_.refs.at(name)) continue;  // an older version of the branch
        const auto it = before_.files.find(key);
        ASSERT_TRUE(it != before_.files.end()) << key;
        EXPECT_TRUE(content == it->second) << "wrong bytes: " << key;
      }
      for (const auto& [key, error] : reading.failed) {
        EXPECT_EQ(error.code, EIO) << key << ": " << error.message;
        const size_t colon = key.find(':');
        if (key.find('/') > colon) continue;  // a branch: reported under its tag
        const std::string version = key.substr(0, colon), name = key.substr(colon + 1);
        EXPECT_TRUE(checking.Names(version, name) || checking.Names(version, "/") || checking.Names(version, "") ||
                    checking.findings.front().what.starts_with("db: "))
            << key << " fails, and fsck does not name it:\n"
            << checking.Text();
      }
      if (!reading.failed.empty()) {
        EXPECT_EQ(checking.exit, 4);
      }
    } else {
      EXPECT_NE(checking.exit, 0) << reading.open_error;
    }
    if (must_find) {
      EXPECT_GT(checking.findings.size() + checking.error.size(), 0U);
    }
  }
  void Flip(const std::string& file, const std::string& bytes, size_t at, unsigned bit) {
    std::string damaged = bytes;
    damaged[at] ^= static_cast<char>(1 << bit);
    SetBytes(file, damaged);
    // Not every byte of RocksDB's files has a checksum (padding has none); there it is enough that nothing is wrong.
    Examine(fmt::format("{}: bit {} of byte {}", file, bit, at), !file.starts_with("db/") && !HoldsNothing(file));
    SetBytes(file, bytes);
  }
  void Cut(const std::string& file, const std::string& bytes, size_t length) {
    SetBytes(file, bytes.substr(0, length));
    // A log that is cut inside its last record is one whose last publish was cut short; fsck says what version hangs.
    Examine(fmt::format("{}: cut to {} bytes", file, length), !HoldsNothing(file));
    SetBytes(file, bytes);
  }

  Reading before_;
  std::vector<std::string> files_;
};

TEST_F(Files, FlippedBits) {
  const unsigned seed = Seed();
  SCOPED_TRACE(fmt::format("MIRAGE_SEED={}", seed));
  std::mt19937 random(seed);
  for (const std::string& file : files_) {
    const std::string bytes = Bytes(file);
    for (int i = 0; i < (HoldsNothing(file) ? 1 : 4) && !bytes.empty(); ++i) {
      Flip(file, bytes, random() % bytes.size(), random() % 8);
    }
  }
}

// A bit makes a digit of a checksum another letter for the same number.
TEST_F(Files, DigitsInCapitals) {
  const std::string bytes = Bytes("refs.log");
  for (size_t line = bytes.find('\n') + 1; line < bytes.size(); line = bytes.find('\n', line) + 1) {
    const size_t checksum = bytes.rfind('\t', bytes.find('\n', line)) + 1;
    Flip("refs.log", bytes, bytes.find_first_of("abcdef", checksum), 5);
  }
}

TEST_F(Files, Lengths) {
  const unsigned seed = Seed();
  SCOPED_TRACE(fmt::format("MIRAGE_SEED={}", seed));
  std::mt19937 random(seed);
  for (const std::string& file : files_) {
    const std::string bytes = Bytes(file);
    if (bytes.empty()) continue;
    for (const size_t length : {size_t{0}, random() % bytes.size(), bytes.size() - 1}) Cut(file, bytes, length);
  }
}

TEST_F(Files, Deleted) {
  for (const std::string& file : files_) {
    fs::rename(path() + "/" + file, path() + "-aside");
    Examine("removed: " + file, !HoldsNothing(file));
    fs::rename(path() + "-aside", path() + "/" + file);
  }
  fs::rename(path() + "/db", path() + "-aside");
  Examine("removed: db", true);
}

TEST_F(Files, Swapped) {
  const auto swap = [&](const std::string& a, const std::string& b) {
    const std::string in_a = Bytes(a), in_b = Bytes(b);
    SetBytes(a, in_b);
    SetBytes(b, in_a);
    Examine(fmt::format("swapped: {} and {}", a, b), true);
    SetBytes(a, in_a);
    SetBytes(b, in_b);
  };
  const auto packs = Packs();
  swap(packs[0], packs[1]);
  swap(packs[1], packs[2]);
  swap(packs[0], "refs.log");
  swap("FORMAT", "refs.log");
  std::vector<std::string> tables;
  for (const std::string& file : files_) {
    if (file.ends_with(".sst")) tables.push_back(file);
  }
  ASSERT_GE(tables.size(), 2U);
  swap(tables[0], tables[1]);
}

// A block that checks but whose row is not what its id says: only fsck looks, and its reader is told nothing wrong.
TEST_F(Files, APackOfAnotherLibrary) {
  const std::string other = path() + "-other";
  Must(Library::Create(other, {}));
  const auto library = Must(Library::Open(other, {}));
  Must(Publish(library, "debian", {{"a", "one"}}));
  for (const std::string& name : Must(Env::Default().List(other + "/packs"))) {
    fs::copy(other + "/packs/" + name, path() + "/packs/" + name);
  }
  Examine("packs of another library", true);
}

TEST_F(Files, StrangersAmongThePacks) {
  SetBytes("packs/notes.txt", "hello");
  Examine("packs/notes.txt", true);
  EXPECT_EQ(Check(path(), true).exit, 1);
  EXPECT_TRUE(fs::exists(path() + "/quarantine/notes.txt"));
}

class SmallFiles : public Files {
 protected:
  SmallFiles() : Files(/*small=*/true) {}
  // Every place in what is the library's own; RocksDB's in steps, for it has as many again.
  static size_t Step(const std::string& file, const std::string& bytes) {
    if (HoldsNothing(file)) return bytes.size() / 4 + 1;
    return file.starts_with("db/") ? 5 : 1;
  }
};

TEST_F(SmallFiles, EveryByte) {
  for (const std::string& file : files_) {
    const std::string bytes = Bytes(file);
    for (size_t at = 0; at < bytes.size(); at += Step(file, bytes))
      Flip(file, bytes, at, static_cast<unsigned>(at % 8));
  }
}

TEST_F(SmallFiles, EveryLength) {
  for (const std::string& file : files_) {
    const std::string bytes = Bytes(file);
    for (size_t length = 0; length < bytes.size(); length += Step(file, bytes)) Cut(file, bytes, length);
  }
}

}  // namespace
}  // namespace mirage
