#include "tests/fuzz/decoders.h"

#include <xxhash.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>

#include "indexer/recipe.h"
#include "indexer/rpm_database.h"
#include "store/encoding.h"
#include "store/format.h"
#include "store/map_node.h"
#include "store/pack.h"
#include "store/ref_log.h"
#include "store/revision.h"
#include "store/source_facts.h"
#include "tests/fuzz/disk_target.h"
#include "tests/fuzz/image_decoders.h"
#include "tests/fuzz/memory_file.h"
#include "tests/fuzz/overlay_decoders.h"
#include "tests/testing/memory_objects.h"
#include "tests/testing/object_samples.h"

namespace mirage::testing {
namespace {

void Require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "broken promise: %s\n", what);
  std::abort();
}
template <typename T>
T Value(Result<T> result) {
  if (!result) std::fprintf(stderr, "%s\n", result.error().message.c_str());
  Require(result.has_value(), "a seed is valid");
  return std::move(*result);
}
constexpr const char* kCanonical = "what is accepted encodes to the same bytes";

// ---- objects

void RunEntry(std::string_view bytes) {
  if (const auto entry = DecodeEntry(bytes)) Require(EncodeEntry(*entry) == bytes, kCanonical);
}
std::vector<std::string> EntrySeeds() {
  std::vector<std::string> seeds;
  for (const Entry& entry : SampleEntries()) seeds.push_back(EncodeEntry(entry));
  return seeds;
}

void RunXattrs(std::string_view bytes) {
  if (const auto set = DecodeXattrs(bytes)) Require(EncodeXattrs(*set).value_or("") == bytes, kCanonical);
}
std::vector<std::string> XattrSeeds() {
  return {Value(EncodeXattrs({{"user.a", "1"}})),
          Value(EncodeXattrs({{"a", ""}, {"b", std::string(300, 'b')}, {"c", "c"}}))};
}

void RunContentNode(std::string_view bytes) {
  if (const auto node = DecodeContentNode(bytes)) Require(EncodeContentNode(*node) == bytes, kCanonical);
}
std::vector<std::string> ContentNodeSeeds() {
  return {EncodeContentNode({0, {{10, HashBytes("a")}, {8192, {}}, {5, HashBytes("b")}}}),
          EncodeContentNode({2, std::vector<Segment>(20, {1 << 20, HashBytes("child")})})};
}

void RunManifest(std::string_view bytes) {
  const auto manifest = DecodeManifest(bytes);
  if (!manifest) return;
  const auto again = EncodeManifest(*manifest);
  Require(again.has_value(), "a manifest that was read can be written");
  // Optional fields of a later version are passed over, and so not encoded again.
  Require(*again == bytes || again->size() < bytes.size(), kCanonical);
}
std::vector<std::string> ManifestSeeds() {
  return {Value(EncodeManifest(SmallManifest())), Value(EncodeManifest(SampleManifest()))};
}

void RunMapNode(ObjectKind kind, std::string_view bytes) {
  const auto decoded = MapNode::Decode(kind, std::string(bytes));
  if (!decoded) return;
  const MapNode& node = **decoded;
  // Everything in it can be reached; then its layout leaves no freedom.
  std::string again(bytes.substr(0, 4)), items;
  Put<uint32_t>(&again, static_cast<uint32_t>(node.size()));
  for (size_t i = 0; i < node.size(); ++i) {
    Put<uint32_t>(&again, static_cast<uint32_t>(8 + 4 * node.size() + items.size()));
    Require(node.LowerBound(node.key(i)) == i, "a key is found where it is");
    Put<uint16_t>(&items, static_cast<uint16_t>(node.key(i).size()));
    items += node.key(i);
    if (node.level() == 0) {
      items += node.value(i);
    } else {
      PutId(&items, node.child(i));
      Put<uint64_t>(&items, node.child_count(i));
    }
  }
  Require(again + items == bytes, kCanonical);
}
void RunTree(std::string_view bytes) { RunMapNode(ObjectKind::kTree, bytes); }
void RunLinks(std::string_view bytes) { RunMapNode(ObjectKind::kLinks, bytes); }
std::vector<std::string> MapSeeds(ObjectKind kind) {
  MemoryObjects objects;
  for (const size_t count : {size_t{0}, size_t{3}, size_t{2000}}) {
    MapBuilder builder(objects, kind);
    for (size_t i = 0; i < count; ++i)
      Require(builder.Add(fmt::format("{:05}", i), "some value").has_value(), "a pair");
    Value(builder.Finish());
  }
  std::vector<std::string> seeds;
  for (const auto& [key, encoding] : objects.objects) {
    if (encoding[2] != 0 || encoding.size() < 4000) seeds.push_back(encoding);
  }
  return seeds;
}
std::vector<std::string> TreeSeeds() { return MapSeeds(ObjectKind::kTree); }
std::vector<std::string> LinksSeeds() { return MapSeeds(ObjectKind::kLinks); }

// ---- packs

constexpr PackNumber kPack = 0x0102030405060708;
constexpr uint32_t kOffset = 48;
constexpr std::string_view kUuid = "0123456789abcdef";

// A record with the checksum that its bytes have at kOffset of kPack, so that what lies behind the checksum is reached.
std::string WithChecksum(std::string record) {
  if (record.size() < 32) return record;
  std::string checked = record.substr(0, 16) + record.substr(24);
  const uint64_t sum = XXH3_64bits_withSeed(checked.data(), checked.size(), kPack ^ kOffset);
  std::memcpy(record.data() + 16, &sum, sizeof sum);
  return record;
}

void RunBlock(std::string_view bytes) {
  for (const std::string& record : {std::string(bytes), WithChecksum(std::string(bytes))}) {
    const auto block = Block::Decode(record, kPack, kOffset);
    if (!block) continue;
    size_t total = 0;
    for (size_t slot = 0; slot < (*block)->rows().size(); ++slot) {
      Require((*block)->Bytes(slot).size() == (*block)->rows()[slot].length, "a row has its length");
      total += (*block)->Bytes(slot).size();
    }
    Require(total <= kMaxBlockRawBytes, "a block is within its limit");
  }
}
std::string PackBytes() {
  char path[] = "/tmp/mirage-fuzz-XXXXXX";
  Require(::mkdtemp(path) != nullptr, "a directory for a pack");
  const std::string file = std::string(path) + "/" + PackFileName(kPack);
  {
    const auto writer = Value(PackWriter::Create(Env::Default(), file, kPack, kUuid));
    const RawBlock block{
        {{ObjectKind::kChunk, 6, HashBytes("hello\n")}, {ObjectKind::kChunk, 7, HashBytes("mirage\n")}},
        "hello\nmirage\n"};
    const RawBlock second{{{ObjectKind::kXattrs, 5000, HashBytes(std::string(5000, 'x'))}}, std::string(5000, 'x')};
    Value(writer->Append(Value(CompressBlock(block, 3))));
    Value(writer->Append(Value(CompressBlock(second, 3))));
    Require(writer->Finish().has_value(), "a pack");
  }
  std::string bytes = Value(ReadWholeFile(Env::Default(), file, 1 << 20));
  std::filesystem::remove_all(path);
  return bytes;
}
std::vector<std::string> BlockSeeds() {
  const std::string pack = PackBytes();
  const auto end = pack.find("MBLK", kOffset + 4);
  return {pack.substr(kOffset, end - kOffset)};
}

void RunPack(std::string_view bytes) {
  const MemoryFile file(bytes);
  uint64_t last = 0, in_order = 0, salvaged = 0;
  const auto visit = [&](uint64_t* count) {
    return [&last, count](const Location& location, const Block& block, std::string_view record) -> Status {
      Require(location.offset >= last + (last ? 1 : 0), "blocks are visited in order, each once");
      last = location.offset;
      ++*count;
      Require(RecompressedAsIs(block, record).frame.size() < record.size(), "a frame is within its record");
      return {};
    };
  };
  const bool sound = WalkPack(file, "pack", kPack, kUuid, visit(&in_order), {}).has_value();
  last = 0;
  uint64_t damage = 0;
  const auto walked = WalkPack(file, "pack", kPack, kUuid, visit(&salvaged), [&](const std::string&) { ++damage; });
  Require(!sound || (walked && damage == 0 && salvaged == in_order), "what is sound has no damage");
  Require(sound || !walked || damage > 0, "damage is told");
  Require(salvaged >= in_order, "a walk through damage sees no less");
}
std::vector<std::string> PackSeeds() { return {PackBytes()}; }

void RunLocation(std::string_view bytes) {
  if (const auto location = DecodeLocation(bytes)) Require(EncodeLocation(*location) == bytes, kCanonical);
}
std::vector<std::string> LocationSeeds() {
  return {EncodeLocation({kPack, 48, 134, 1}), EncodeLocation({~PackNumber{0}, 1 << 29, 1 << 20, 65534})};
}

// ---- text

RefRecord SampleRecord() {
  return {.sequence = 7,
          .time_sec = 1'700'000'000,
          .time_nsec = 123'456'789,
          .who = "eva@host",
          .action = "import of x%y",
          .moves = {{"debian", HashBytes("a"), HashBytes("b")}, {"debian/v2", {}, HashBytes("b")}}};
}
void RunRefRecord(std::string_view bytes) {
  const ObjectId chain = HashBytes("before");
  ObjectId next;
  // With the checksum that it has, and with the right one, so that what lies behind it is reached.
  std::string line(bytes.substr(0, bytes.find('\n')));
  if (line.size() > 64 && line[line.size() - 65] == '\t') line.resize(line.size() - 64);
  line += HashBytes(std::string(chain.view()) + line).Hex() + "\n";
  for (const std::string_view tried : {bytes, std::string_view(line)}) {
    const auto record = DecodeRefRecord(tried, chain, &next);
    if (!record) continue;
    ObjectId again;
    Require(DecodeRefRecord(EncodeRefRecord(*record, chain, &again), chain, &next).has_value(),
            "a record that was read can be written and read");
  }
}
std::vector<std::string> RefRecordSeeds() {
  ObjectId chain;
  RefRecord record = SampleRecord();
  std::vector<std::string> seeds{EncodeRefRecord(record, HashBytes("before"), &chain)};
  record.moves.clear();
  seeds.push_back(EncodeRefRecord(record, HashBytes("before"), &chain));
  return seeds;
}

void RunFormat(std::string_view bytes) {
  std::string text(bytes.substr(0, 1 << 16));
  static_cast<void>(DecodeFormat(text, "FORMAT"));
  if (const size_t at = text.rfind("checksum: "); at != std::string::npos) text.resize(at);
  text += "checksum: " + HashBytes(text).Hex() + "\n";
  if (const auto format = DecodeFormat(text, "FORMAT")) {
    const auto again = DecodeFormat(EncodeFormat(*format), "FORMAT");
    Require(again && again->uuid == format->uuid && again->chunking == format->chunking,
            "what was read can be written");
  }
}
std::vector<std::string> FormatSeeds() {
  Format format;
  format.uuid = kUuid;
  return {EncodeFormat(format)};
}

void RunPolicy(std::string_view bytes) {
  if (const auto policy = ParsePolicy(bytes, "mirage.yaml")) {
    Require(policy->compression_level >= 1 && policy->compression_level <= 19, "a level that zstd has");
    Require(policy->lock_timeout_ms >= 0, "a time to wait");
  }
}
std::vector<std::string> PolicySeeds() {
  return {"compression_level: 9\nlock_timeout_ms: 100\ncache_bytes: 67108864\nexclude:\n  - /tmp/*\n  - \"*.o\"\n",
          "# nothing\n", "exclude: [/a, &x /b, *x]\n"};
}

// Against a library of one branch, made once a process.
void RunRevision(std::string_view bytes) {
  static const std::shared_ptr<Library> library = [] {
    char path[] = "/tmp/mirage-fuzz-XXXXXX";
    Require(::mkdtemp(path) != nullptr, "a directory for a library");
    static const std::string kept = path;
    std::atexit([] { std::filesystem::remove_all(kept); });
    Require(Library::Create(kept, {}).has_value(), "a library");
    auto opened = Value(Library::Open(kept, {}));
    const auto transaction = Value(opened->Begin("import"));
    MapBuilder empty(*transaction, ObjectKind::kTree);
    NewVersion version;
    version.manifest.root.type = FileType::kDirectory;
    version.manifest.root.id = Value(empty.Finish());
    version.manifest.branch = "debian";
    Value(transaction->Publish(version));
    return opened;
  }();
  const auto snapshot = library->snapshot();
  if (const auto sides = SplitRange(bytes)) {
    Require(sides->first + ".." + sides->second == bytes, "a range has two sides");
  }
  const auto resolved = ResolveVersionPath(*snapshot, bytes);
  if (!resolved) return;
  Require(resolved->version.id == Value(snapshot->Branch("debian"))->manifest, "there is one version");
  if (resolved->path) Require(resolved->path->starts_with('/'), "a path is absolute");
}
std::vector<std::string> RevisionSeeds() {
  return {"debian", "debian/v1", "debian/latest:/etc//passwd", "debian~0~0:.", "@0123abcd", "debian..debian/v1"};
}

// ---- source facts: a file's blocks, and its index

void RunFactsBlock(std::string_view bytes) {
  if (const auto rows = DecodeFactsBlock(bytes)) Require(EncodeFactsBlock(*rows) == bytes, kCanonical);
}
std::vector<std::string> FactsBlockSeeds() {
  std::vector<FactsRow> rows{{"", {FileFacts{0, 2, 1'700'000'000, 5}, {}}}};
  for (int i = 0; i < 50; ++i) {
    SourceFile file;
    if (i % 3 != 0) file.facts = {1, uint64_t{7} << i, -i, 9};
    if (i % 3 != 1) file.fingerprint.bytes.fill(static_cast<uint8_t>(i + 1));
    rows.push_back({fmt::format("etc{}file {:02}", '\0', i), file});
  }
  return {EncodeFactsBlock(rows), EncodeFactsBlock({})};
}
// A footer alone, a footer behind its index, or an index alone.
void RunFactsIndex(std::string_view bytes) {
  if (const auto footer = DecodeFactsFooter(bytes)) Require(EncodeFactsFooter(*footer) == bytes, kCanonical);
  if (const auto index = DecodeFactsIndex(bytes)) Require(EncodeFactsIndex(*index) == bytes, kCanonical);
}
std::vector<std::string> FactsIndexSeeds() {
  const FactsIndex index{{{"uuid 1", 0, 5}, {"", INT64_MIN, INT64_MAX}}, {{0, 1, 100, ""}, {100, 2, 7, "etc"}}};
  return {EncodeFactsIndex(index), EncodeFactsFooter({HashBytes("m"), 7, {{4, 5, 6}}, 107, 99, 3})};
}

// ---- rpm databases, recipes

void RunRpmHeader(std::string_view bytes) {
  if (const auto package = ParseRpmHeader(bytes)) Require(!package->name.empty(), "a package has a name");
}
std::vector<std::string> RpmHeaderSeeds() {
  const auto number = [](uint32_t n) {
    return std::string{static_cast<char>(n >> 24), static_cast<char>(n >> 16), static_cast<char>(n >> 8),
                       static_cast<char>(n)};
  };
  const auto tag = [&](uint32_t id, uint32_t type, uint32_t at) {
    return number(id) + number(type) + number(at) + number(1);
  };
  return {number(4) + number(10) + tag(1000, 6, 0) + tag(1001, 6, 2) + tag(1002, 6, 4) + tag(1003, 4, 6) +
          std::string("a\0001\0002\0", 6) + number(3)};
}

void RunRecipe(std::string_view bytes) {
  const auto recipe = ParseRecipe(bytes, "recipe.yaml", "/r");
  if (!recipe) return;
  for (const RecipeEntry& entry : *recipe) {
    Require(entry.options.source.starts_with('/') && CheckBranchName(entry.options.branch).has_value(),
            "an image has a source and a branch");
  }
}
std::vector<std::string> RecipeSeeds() {
  return {"defaults: {exclude: [/tmp/*]}\nimages:\n  - source: a\n    version: b/v1\n    message: |\n      m\n",
          "images: [{source: /a, version: b, reader: direct, paranoid: false}]\n"};
}

}  // namespace

const std::vector<FuzzTarget>& FuzzTargets() {
  static const std::vector<FuzzTarget> kStoreTargets = {
      {"entry", RunEntry, EntrySeeds},
      {"xattrs", RunXattrs, XattrSeeds},
      {"content_node", RunContentNode, ContentNodeSeeds},
      {"manifest", RunManifest, ManifestSeeds},
      {"tree_node", RunTree, TreeSeeds},
      {"links_node", RunLinks, LinksSeeds},
      {"block", RunBlock, BlockSeeds},
      {"pack", RunPack, PackSeeds},
      {"chunk_index_value", RunLocation, LocationSeeds},
      {"ref_record", RunRefRecord, RefRecordSeeds},
      {"format", RunFormat, FormatSeeds},
      {"policy", RunPolicy, PolicySeeds},
      {"revision", RunRevision, RevisionSeeds},
      {"facts_block", RunFactsBlock, FactsBlockSeeds},
      {"facts_index", RunFactsIndex, FactsIndexSeeds},
      {"rpm_header", RunRpmHeader, RpmHeaderSeeds},
      {"recipe", RunRecipe, RecipeSeeds},
      {"ext", RunExt, ExtSeeds},
      {"fat", RunFat, FatSeeds},
  };
  static const std::vector<FuzzTarget> kTargets = [] {
    std::vector<FuzzTarget> all = kStoreTargets;
    for (const auto* more : {&ImageFuzzTargets(), &OverlayFuzzTargets()}) all.insert(all.end(), more->begin(), more->end());
    return all;
  }();
  return kTargets;
}

}  // namespace mirage::testing
