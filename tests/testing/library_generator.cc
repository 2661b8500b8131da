#include "tests/testing/library_generator.h"

#include <map>
#include <random>

#include "store/tree_writer.h"

namespace mirage::testing {
namespace {

constexpr int kContents = 100;

std::string DirectoryName(int directory) { return fmt::format("directory-{:05}", directory); }
std::string FileName(int file) { return fmt::format("file-{:07}", file); }

Entry NewDirectory() {
  Entry entry;
  entry.type = FileType::kDirectory;
  entry.mode = 0755;
  return entry;
}

// Stages contents; their entries are complete when the writer was flushed.
Status PutContents(Transaction& transaction, const std::vector<std::string>& contents, std::vector<Entry>* entries) {
  entries->assign(contents.size(), {});
  for (size_t i = 0; i < contents.size(); ++i) {
    Entry& entry = (*entries)[i];
    entry.mode = 0644;
    entry.mtime_sec = 1'700'000'000 + static_cast<int64_t>(i);
    TRY(transaction.contents().Put(contents[i], [&entry](const ObjectId& id, uint64_t size) {
      entry.id = id;
      entry.size = size;
    }));
  }
  return transaction.contents().Flush();
}

Status PublishRoot(Transaction& transaction, const std::string& branch, Entry root, const LibraryShape& shape,
                   std::optional<ObjectId>* head) {
  NewVersion version;
  version.manifest.root = std::move(root);
  version.manifest.branch = branch;
  version.manifest.file_count = static_cast<uint64_t>(shape.directories) * static_cast<uint64_t>(shape.files + 1);
  version.expected_head = *head;
  if (*head) version.manifest.parents = {**head};
  ASSIGN_OR_RETURN(const Published published, transaction.Publish(std::move(version)));
  *head = published.manifest;
  return {};
}

}  // namespace

std::string GeneratedPath(int directory, int file) { return DirectoryName(directory) + "/" + FileName(file); }

Status GenerateLibrary(const std::shared_ptr<Library>& library, const std::string& branch, const LibraryShape& shape,
                       const std::function<void(int version)>& published) {
  std::mt19937_64 random(shape.seed);
  std::optional<ObjectId> head;
  Entry root;
  {
    ASSIGN_OR_RETURN(const auto transaction, library->Begin("generated import"));
    std::vector<std::string> contents;
    for (int i = 0; i < kContents; ++i) contents.push_back(fmt::format("content {} of seed {}\n", i, shape.seed));
    std::vector<Entry> entries;
    TRY(PutContents(*transaction, contents, &entries));
    TreeWriter tree(*transaction);
    TRY(tree.Add("", NewDirectory()));
    for (int directory = 0; directory < shape.directories; ++directory) {
      TRY(tree.Add(DirectoryName(directory), NewDirectory()));
      for (int file = 0; file < shape.files; ++file) {
        TRY(tree.Add(GeneratedPath(directory, file), entries[random() % entries.size()]));
      }
    }
    ASSIGN_OR_RETURN(root, tree.Finish());
    TRY(PublishRoot(*transaction, branch, root, shape, &head));
    if (published) published(1);
  }
  for (int number = 2; number <= shape.versions; ++number) {
    ASSIGN_OR_RETURN(const auto transaction, library->Begin("generated commit"));
    std::map<int, int> changed;  // directory -> file
    for (int i = 0; i < shape.changes; ++i) {
      changed.emplace(random() % static_cast<uint64_t>(shape.directories), random() % static_cast<uint64_t>(shape.files));
    }
    std::vector<std::string> contents;
    for (const auto& [directory, file] : changed) contents.push_back(fmt::format("{} in {} of {}\n", file, directory, number));
    std::vector<Entry> entries;
    TRY(PutContents(*transaction, contents, &entries));
    std::vector<TreeEdit> in_root;
    size_t next = 0;
    for (const auto& [directory, file] : changed) {
      ASSIGN_OR_RETURN(const auto encoded, library->trees().Find(root.id, DirectoryName(directory)));
      if (!encoded) return Fail(EIO, "generated library: {} is gone", DirectoryName(directory));
      ASSIGN_OR_RETURN(Entry entry, DecodeEntry(*encoded));
      ASSIGN_OR_RETURN(const EditedTree edited,
                       EditTree(*transaction, library->trees(), entry.id, 0, {{FileName(file), entries[next++]}}));
      entry.id = edited.id;
      in_root.push_back({DirectoryName(directory), std::move(entry)});
    }
    ASSIGN_OR_RETURN(const EditedTree edited, EditTree(*transaction, library->trees(), root.id, root.size, in_root));
    root.id = edited.id;
    TRY(PublishRoot(*transaction, branch, root, shape, &head));
    if (published) published(number);
  }
  return {};
}

}  // namespace mirage::testing
