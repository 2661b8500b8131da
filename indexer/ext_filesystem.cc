#include "indexer/ext_filesystem.h"

extern "C" {
#include <et/com_err.h>
#include <ext2fs/ext2_fs.h>
#include <ext2fs/ext2fs.h>
}

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "store/encoding.h"

namespace mirage {
namespace {

constexpr int kMostLinks = 40;  // of a path, as the kernel's
constexpr size_t kSuperblockOffset = 1024, kSuperblockBytes = 1024;
constexpr uint32_t kNanoseconds = 1'000'000'000;
// A name takes 12 bytes of a directory's block at least.
constexpr uint64_t kLeastNameBytes = 12;

// Features that change nothing of what a reader sees, or that it knows. Compatible ones are so by definition.
constexpr uint32_t kKnownIncompatible =
    EXT2_FEATURE_INCOMPAT_FILETYPE | EXT2_FEATURE_INCOMPAT_META_BG | EXT3_FEATURE_INCOMPAT_EXTENTS |
    EXT4_FEATURE_INCOMPAT_64BIT | EXT4_FEATURE_INCOMPAT_MMP | EXT4_FEATURE_INCOMPAT_FLEX_BG |
    EXT4_FEATURE_INCOMPAT_EA_INODE | EXT4_FEATURE_INCOMPAT_CSUM_SEED | EXT4_FEATURE_INCOMPAT_LARGEDIR |
    EXT4_FEATURE_INCOMPAT_INLINE_DATA | EXT4_FEATURE_INCOMPAT_CASEFOLD;
constexpr uint32_t kKnownReadOnlyCompatible =
    EXT2_FEATURE_RO_COMPAT_SPARSE_SUPER | EXT2_FEATURE_RO_COMPAT_LARGE_FILE | EXT4_FEATURE_RO_COMPAT_HUGE_FILE |
    EXT4_FEATURE_RO_COMPAT_GDT_CSUM | EXT4_FEATURE_RO_COMPAT_DIR_NLINK | EXT4_FEATURE_RO_COMPAT_EXTRA_ISIZE |
    EXT4_FEATURE_RO_COMPAT_QUOTA | EXT4_FEATURE_RO_COMPAT_BIGALLOC | EXT4_FEATURE_RO_COMPAT_METADATA_CSUM |
    EXT4_FEATURE_RO_COMPAT_READONLY | EXT4_FEATURE_RO_COMPAT_PROJECT;

// ---- The road from libext2fs to the image: reads inside the window, nothing else.

const DiskWindow* g_window = nullptr;  // of the one filesystem of this process; ext2fs_open2 takes a name, no pointer

errcode_t OpenChannel(const char* name, int, io_channel* out);
errcode_t CloseChannel(io_channel channel) {
  std::free(channel->name);
  std::free(channel);
  return 0;
}
errcode_t SetBlockSize(io_channel channel, int size) {
  channel->block_size = size;
  return 0;
}
errcode_t ReadBlocks(io_channel channel, unsigned long long block, int count, void* data) {
  const auto block_bytes = static_cast<uint64_t>(channel->block_size);
  // A negative count is a number of bytes.
  const uint64_t length =
      count < 0 ? static_cast<uint64_t>(-static_cast<int64_t>(count)) : static_cast<uint64_t>(count) * block_bytes;
  if (block > g_window->size() / block_bytes) return EXT2_ET_SHORT_READ;
  return g_window->ReadAt(block * block_bytes, static_cast<char*>(data), static_cast<size_t>(length))
             ? 0
             : EXT2_ET_SHORT_READ;
}
errcode_t ReadBlocks32(io_channel channel, unsigned long block, int count, void* data) {
  return ReadBlocks(channel, block, count, data);
}
errcode_t RefuseWrite(io_channel, unsigned long, int, const void*) { return EXT2_ET_RO_FILSYS; }
errcode_t RefuseWrite64(io_channel, unsigned long long, int, const void*) { return EXT2_ET_RO_FILSYS; }
errcode_t FlushChannel(io_channel) { return 0; }

struct_io_manager MakeManager() {
  struct_io_manager manager{};
  manager.magic = EXT2_ET_MAGIC_IO_MANAGER;
  manager.name = "disk window";
  manager.open = OpenChannel;
  manager.close = CloseChannel;
  manager.set_blksize = SetBlockSize;
  manager.read_blk = ReadBlocks32;
  manager.read_blk64 = ReadBlocks;
  manager.write_blk = RefuseWrite;
  manager.write_blk64 = RefuseWrite64;
  manager.flush = FlushChannel;
  return manager;
}
struct_io_manager g_manager = MakeManager();

// libext2fs frees it by CloseChannel.
errcode_t OpenChannel(const char* name, int, io_channel* out) {
  auto* const channel = static_cast<io_channel>(std::calloc(1, sizeof(struct_io_channel)));
  if (channel == nullptr) return EXT2_ET_NO_MEMORY;
  channel->magic = EXT2_ET_MAGIC_IO_CHANNEL;
  channel->manager = &g_manager;
  channel->name = strdup(name);
  channel->block_size = 1024;
  channel->refcount = 1;
  *out = channel;
  return 0;
}

tl::unexpected<Error> Damaged(std::string_view path, std::string_view what) {
  return Fail(EIO, "/{}: the filesystem is damaged ({}); repair it with e2fsck, or try --reader guestfs", path, what);
}
tl::unexpected<Error> Damaged(std::string_view path, errcode_t code) {
  if (code == EXT2_ET_NO_MEMORY || code == ENOMEM) return Fail(ENOMEM, "/{}: it takes more memory than allowed", path);
  return Damaged(path, error_message(code));
}

// The kernel's ACL entries are shorter on disk: version 1, and no id where none is needed.
Result<std::string> AclFromDisk(std::string_view path, std::string_view value) {
  Decoder in(value);
  if (in.Take<uint32_t>() != 1) return Damaged(path, "an ACL of unknown version");
  std::string out;
  Put<uint32_t>(&out, 2);
  while (in.ok() && in.left() > 0) {
    const uint16_t tag = in.Take<uint16_t>(), permissions = in.Take<uint16_t>();
    const bool named = tag == 0x02 || tag == 0x08;
    const uint32_t id = named ? in.Take<uint32_t>() : ~uint32_t{0};
    Put<uint16_t>(&out, tag);
    Put<uint16_t>(&out, permissions);
    Put<uint32_t>(&out, id);
  }
  if (!in.ok()) return Damaged(path, "an ACL that is cut off");
  return out;
}

struct Named {
  std::string name;
  ext2_ino_t inode;
  bool operator<(const Named& other) const { return name < other.name; }
};

}  // namespace

struct ExtFilesystem::Impl {
  const DiskWindow& window;
  ext2_filsys fs = nullptr;
  std::vector<char> inode_bytes;                       // an inode as it lies on the disk
  uint64_t names = 0, data_bytes = 0;                  // seen so far, against what a filesystem of this size can have
  std::unordered_map<ext2_ino_t, std::string> firsts;  // of inodes with several names: the one that came first
  std::unordered_set<ext2_ino_t> directories;

  explicit Impl(const DiskWindow& where) : window(where) {}
  ~Impl() {
    if (fs != nullptr) ext2fs_free(fs);
  }
  ext2_inode_large& inode() { return *reinterpret_cast<ext2_inode_large*>(inode_bytes.data()); }
  ext2_inode* small_inode() { return reinterpret_cast<ext2_inode*>(inode_bytes.data()); }
  uint64_t block_bytes() const { return fs->blocksize; }

  Status ReadInode(const std::string& path, ext2_ino_t number) {
    // What the kernel refuses to look at as a file.
    if (number != EXT2_ROOT_INO && number < EXT2_FIRST_INO(fs->super)) return Damaged(path, "a reserved inode");
    if (number > fs->super->s_inodes_count) return Damaged(path, "an inode behind the last one");
    if (const errcode_t code = ext2fs_read_inode_full(fs, number, small_inode(), static_cast<int>(inode_bytes.size()));
        code != 0) {
      return Damaged(path, code);
    }
    if (inode().i_links_count == 0) return Damaged(path, "it is a deleted file");
    if ((inode().i_flags & EXT4_EA_INODE_FL) != 0) return Damaged(path, "it is an attribute");
    if ((inode().i_flags & EXT4_ENCRYPT_FL) != 0) return Fail(EOPNOTSUPP, "/{} is encrypted", path);
    return {};
  }

  // As ext4's inode_set_mtime: seconds are signed, two bits of the other field extend them.
  void Time(uint32_t field, size_t extra_at, uint32_t extra, int64_t& sec, uint32_t& nsec) {
    sec = static_cast<int32_t>(field);
    if (inode_bytes.size() <= EXT2_GOOD_OLD_INODE_SIZE ||
        size_t{EXT2_GOOD_OLD_INODE_SIZE} + inode().i_extra_isize < extra_at + sizeof extra) {
      return;
    }
    sec += static_cast<int64_t>(extra & 3) << 32;
    nsec = extra >> 2;
  }
  // By what a file is known again. A ctime that no kernel writes is none.
  void FillFacts(ext2_ino_t number, EntryRecord& record) {
    const ext2_inode_large& raw = inode();
    Time(raw.i_ctime, offsetof(ext2_inode_large, i_ctime_extra), raw.i_ctime_extra, record.ctime_sec, record.ctime_nsec);
    if (record.ctime_nsec < kNanoseconds) {
      record.inode = number;
    } else {
      record.ctime_sec = record.ctime_nsec = 0;
    }
  }

  Status FillEntry(const std::string& path, Entry& entry) {
    const ext2_inode_large& raw = inode();
    entry.mode = static_cast<uint16_t>(raw.i_mode & 07777);
    entry.uid = raw.i_uid | uint32_t{raw.osd2.linux2.l_i_uid_high} << 16;
    entry.gid = raw.i_gid | uint32_t{raw.osd2.linux2.l_i_gid_high} << 16;
    Time(raw.i_mtime, offsetof(ext2_inode_large, i_mtime_extra), raw.i_mtime_extra, entry.mtime_sec, entry.mtime_nsec);
    if (entry.mtime_nsec >= kNanoseconds) return Damaged(path, "an impossible time");
    switch (raw.i_mode & LINUX_S_IFMT) {
      case LINUX_S_IFREG:
        entry.type = FileType::kRegular;
        break;
      case LINUX_S_IFDIR:
        entry.type = FileType::kDirectory;
        break;
      case LINUX_S_IFLNK:
        entry.type = FileType::kSymlink;
        break;
      case LINUX_S_IFCHR:
        entry.type = FileType::kCharDevice;
        break;
      case LINUX_S_IFBLK:
        entry.type = FileType::kBlockDevice;
        break;
      case LINUX_S_IFIFO:
        entry.type = FileType::kFifo;
        break;
      case LINUX_S_IFSOCK:
        entry.type = FileType::kSocket;
        break;
      default:
        return Damaged(path, "it is of no known type");
    }
    if (entry.type == FileType::kCharDevice || entry.type == FileType::kBlockDevice) {
      if (raw.i_block[0] != 0) {
        entry.rdev_major = raw.i_block[0] >> 8 & 0xff;
        entry.rdev_minor = raw.i_block[0] & 0xff;
      } else {
        entry.rdev_major = (raw.i_block[1] & 0xfff00) >> 8;
        entry.rdev_minor = (raw.i_block[1] & 0xff) | (raw.i_block[1] >> 12 & 0xfff00);
      }
    }
    return {};
  }

  // Those that the kernel lists: the names libext2fs knows, without inline data and rich ACLs.
  Result<XattrSet> ReadXattrs(const std::string& path, ext2_ino_t number) {
    const ext2_inode_large& raw = inode();
    bool inside = false;
    if (inode_bytes.size() > EXT2_GOOD_OLD_INODE_SIZE + sizeof raw.i_extra_isize) {
      const size_t at = EXT2_GOOD_OLD_INODE_SIZE + raw.i_extra_isize;
      inside = at + sizeof(uint32_t) <= inode_bytes.size() &&
               LoadAt<uint32_t>({inode_bytes.data(), inode_bytes.size()}, at) == EXT2_EXT_ATTR_MAGIC;
    }
    if (!inside && ext2fs_file_acl_block(fs, small_inode()) == 0) return XattrSet{};
    ext2_xattr_handle* handle = nullptr;
    if (const errcode_t code = ext2fs_xattrs_open(fs, number, &handle); code != 0) return Damaged(path, code);
    struct Taking {
      const std::string& path;
      XattrSet set;
      Status status;
    } taking{path, {}, {}};
    errcode_t code = ext2fs_xattrs_read_inode(handle, &inode());
    if (code == 0) {
      code = ext2fs_xattrs_iterate(
          handle,
          [](char* name, char* value, size_t length, void* context) {
            auto& to = *static_cast<Taking*>(context);
            const std::string_view attribute(name), bytes(value, length);
            if (attribute == "system.posix_acl_access" || attribute == "system.posix_acl_default") {
              auto acl = AclFromDisk(to.path, bytes);
              if (!acl) {
                to.status = tl::make_unexpected(std::move(acl).error());
                return XATTR_ABORT;
              }
              to.set[name] = std::move(*acl);
            } else if (attribute.starts_with("user.") || attribute.starts_with("trusted.") ||
                       attribute.starts_with("security.")) {
              to.set[name] = bytes;
            }
            return 0;
          },
          &taking);
    }
    ext2fs_xattrs_close(&handle);
    if (code != 0) return Damaged(path, code);
    TRY(std::move(taking.status));
    return std::move(taking.set);
  }

  // Checks and merges what the two kinds of block maps give, in the file's order.
  struct ExtentList {
    Impl& impl;
    const std::string& path;
    const std::function<Status(const Extent&)>& visit;
    Extent last;
    uint64_t behind = 0;  // the first logical block that may come next
    Status status;

    // All in blocks.
    bool Take(uint64_t logical, uint64_t physical, uint64_t length, bool written) {
      const uint64_t blocks = ext2fs_blocks_count(impl.fs->super);
      if (length == 0 || logical < behind || physical < impl.fs->super->s_first_data_block || physical >= blocks ||
          length > blocks - physical || logical > (uint64_t{1} << 32) || length > (uint64_t{1} << 32)) {
        status = Damaged(path, "impossible blocks");
        return false;
      }
      behind = logical + length;
      // Blocks that several files hold: libext2fs's users would read a small image for ever.
      impl.data_bytes += length * impl.block_bytes();
      if (impl.data_bytes > impl.window.size()) {
        status = Damaged(path, "its files have more blocks than there are");
        return false;
      }
      if (!written) return true;
      const uint64_t scale = impl.block_bytes();
      if (last.length > 0 && last.logical + last.length == logical * scale &&
          last.physical + last.length == physical * scale) {
        last.length += length * scale;
        return true;
      }
      if (last.length > 0) status = visit(last);
      last = {logical * scale, physical * scale, length * scale};
      return static_cast<bool>(status);
    }
    Status Finish() {
      if (status && last.length > 0) status = visit(last);
      return std::move(status);
    }
  };

  // Of the inode that was read. Bytes may reach behind the file's size.
  Status ForEachExtent(const std::string& path, ext2_ino_t number, const std::function<Status(const Extent&)>& visit) {
    ExtentList list{*this, path, visit, {}, 0, {}};
    if ((inode().i_flags & EXT4_EXTENTS_FL) == 0) {
      const errcode_t code = ext2fs_block_iterate3(
          fs, number, BLOCK_FLAG_READ_ONLY | BLOCK_FLAG_DATA_ONLY, nullptr,
          [](ext2_filsys, blk64_t* block, e2_blkcnt_t logical, blk64_t, int, void* context) {
            auto& to = *static_cast<ExtentList*>(context);
            return logical >= 0 && to.Take(static_cast<uint64_t>(logical), *block, 1, true) ? 0 : BLOCK_ABORT;
          },
          &list);
      if (code != 0) return Damaged(path, code);
      return list.Finish();
    }
    ext2_extent_handle_t handle = nullptr;
    errcode_t code = ext2fs_extent_open2(fs, number, small_inode(), &handle);
    if (code != 0) return Damaged(path, code);
    const std::unique_ptr<ext2_extent_handle, void (*)(ext2_extent_handle*)> closer(handle, ext2fs_extent_free);
    ext2fs_extent extent;
    uint64_t steps = 0;
    for (int step = EXT2_EXTENT_ROOT;; step = EXT2_EXTENT_NEXT) {
      code = ext2fs_extent_get(handle, step, &extent);
      if (code == EXT2_ET_EXTENT_NO_NEXT) break;
      if (code != 0) return Damaged(path, code);
      // Every leaf has a block, and a block of the tree has one leaf at least, so that all steps are few.
      if (++steps > 4 * window.size() / block_bytes() + 16) return Damaged(path, "an endless tree of extents");
      if ((extent.e_flags & EXT2_EXTENT_FLAGS_LEAF) == 0 || (extent.e_flags & EXT2_EXTENT_FLAGS_SECOND_VISIT) != 0) {
        continue;
      }
      if (!list.Take(extent.e_lblk, extent.e_pblk, extent.e_len, (extent.e_flags & EXT2_EXTENT_FLAGS_UNINIT) == 0)) {
        return std::move(list.status);
      }
    }
    return list.Finish();
  }

  bool HasInlineData() { return (inode().i_flags & EXT4_INLINE_DATA_FL) != 0; }
  Result<std::string> InlineData(const std::string& path, ext2_ino_t number) {
    size_t size = 0;
    errcode_t code = ext2fs_inline_data_size(fs, number, &size);
    if (code == 0 && size > inode_bytes.size()) return Damaged(path, "inline data of impossible length");
    std::string bytes(size, '\0');
    if (code == 0 && size > 0) code = ext2fs_inline_data_get(fs, number, small_inode(), bytes.data(), &size);
    if (code != 0) return Damaged(path, code);
    return bytes;
  }

  // The first bytes of the inode that was read, its holes as zeros.
  Result<std::string> ReadBytes(const std::string& path, ext2_ino_t number, uint64_t size) {
    if (HasInlineData()) {
      ASSIGN_OR_RETURN(std::string bytes, InlineData(path, number));
      bytes.resize(static_cast<size_t>(size));
      return bytes;
    }
    std::string bytes(static_cast<size_t>(size), '\0');
    TRY(ForEachExtent(path, number, [&](const Extent& extent) -> Status {
      if (extent.logical >= size) return {};
      return window.ReadAt(extent.physical, bytes.data() + extent.logical,
                           static_cast<size_t>(std::min(extent.length, size - extent.logical)));
    }));
    return bytes;
  }

  Result<std::string> SymlinkTarget(const std::string& path, ext2_ino_t number) {
    const uint64_t size = EXT2_I_SIZE(small_inode());
    std::string target;
    if (!HasInlineData() && ext2fs_is_fast_symlink(small_inode()) != 0) {
      if (size >= sizeof inode().i_block) return Damaged(path, "a symbolic link of impossible length");
      target.assign(reinterpret_cast<const char*>(inode().i_block), static_cast<size_t>(size));
    } else {
      if (size > block_bytes()) return Damaged(path, "a symbolic link of impossible length");
      ASSIGN_OR_RETURN(target, ReadBytes(path, number, size));
    }
    target.resize(strnlen(target.data(), target.size()));
    if (target.empty()) return Damaged(path, "an empty symbolic link");
    return target;
  }

  // The inode of a path; 0: there is none. Links on the way are followed, one at the end with `follow`. Not by ext2fs_namei_follow,
  // which reads as many bytes of a short link as its inode says it has.
  Result<ext2_ino_t> Resolve(const std::string& path, bool follow) {
    std::vector<std::string> rest;  // names to go, the next one last
    const auto put = [&rest](std::string_view text) {
      while (!text.empty()) {
        const size_t name = text.rfind('/') + 1;  // npos + 1 is 0
        rest.emplace_back(text.substr(name));
        text = text.substr(0, name == 0 ? 0 : name - 1);
      }
    };
    put(path);
    std::vector<ext2_ino_t> way{EXT2_ROOT_INO};
    for (int links = 0; !rest.empty();) {
      const std::string name = std::move(rest.back());
      rest.pop_back();
      if (name.empty() || name == ".") continue;
      if (name == "..") {
        if (way.size() > 1) way.pop_back();
        continue;
      }
      TRY(ReadInode(path, way.back()));
      if (!LINUX_S_ISDIR(inode().i_mode)) return ext2_ino_t{0};
      ext2_ino_t number = 0;
      const errcode_t code = ext2fs_lookup(fs, way.back(), name.data(), static_cast<int>(name.size()), nullptr, &number);
      if (code == EXT2_ET_FILE_NOT_FOUND) return ext2_ino_t{0};
      if (code != 0) return Damaged(path, code);
      TRY(ReadInode(path, number));
      if (!LINUX_S_ISLNK(inode().i_mode) || (rest.empty() && !follow)) {
        way.push_back(number);
        continue;
      }
      if (++links > kMostLinks) return ext2_ino_t{0};
      ASSIGN_OR_RETURN(const std::string target, SymlinkTarget(path, number));
      if (target.starts_with('/')) way.resize(1);
      put(target);
    }
    return way.back();
  }

  // Sorted, without "." and "..".
  Result<std::vector<Named>> List(const std::string& path, ext2_ino_t number) {
    struct Taking {
      Impl& impl;
      std::vector<Named> names;
      uint64_t count = 0;  // with those that are not kept
      const char* wrong = nullptr;
    } taking{*this, {}, 0, nullptr};
    const errcode_t code = ext2fs_dir_iterate2(
        fs, number, 0, nullptr,
        [](ext2_ino_t, int, ext2_dir_entry* raw, int, int, char*, void* context) {
          auto& to = *static_cast<Taking*>(context);
          const std::string_view name(raw->name, static_cast<size_t>(ext2fs_dirent_name_len(raw)));
          // The first two are its own and no others: a name that is passed over would be a file that nobody sees.
          const bool own = ++to.count <= 2;
          if (own && name == (to.count == 1 ? "." : "..")) return 0;
          if (own || name == "." || name == ".." || name.empty() || name.find('/') != std::string_view::npos ||
              name.find('\0') != std::string_view::npos) {
            to.wrong = "an impossible name";
          } else if (++to.impl.names > to.impl.window.size() / kLeastNameBytes) {
            to.wrong = "its directories have more names than it has room for";
          } else {
            to.names.push_back({std::string(name), raw->inode});
          }
          return to.wrong == nullptr ? 0 : DIRENT_ABORT;
        },
        &taking);
    if (code != 0) return Damaged(path, code);
    if (taking.wrong != nullptr) return Damaged(path, taking.wrong);
    std::sort(taking.names.begin(), taking.names.end());
    for (size_t i = 1; i < taking.names.size(); ++i) {
      if (taking.names[i].name == taking.names[i - 1].name) return Damaged(path, "a name that comes twice");
    }
    return std::move(taking.names);
  }

  // Sends the inode that was read, which is no directory, under its path.
  Status SendFile(const std::string& path, ext2_ino_t number, ReaderOutput& output) {
    if (inode().i_links_count > 1) {
      const auto [first, is_first] = firsts.try_emplace(number, path);
      if (!is_first) return output.Send(RecordKind::kLink, Encode(LinkRecord{path, first->second}));
    }
    EntryRecord record;
    record.path = path;
    TRY(FillEntry(path, record.entry));
    FillFacts(number, record);
    ASSIGN_OR_RETURN(record.xattrs, ReadXattrs(path, number));
    if (record.entry.type == FileType::kSymlink) {
      ASSIGN_OR_RETURN(record.target, SymlinkTarget(path, number));
    }
    if (record.entry.type != FileType::kRegular) return output.Send(RecordKind::kEntry, Encode(record));

    const uint64_t size = EXT2_I_SIZE(small_inode());
    if (size > block_bytes() << 32) return Damaged(path, "an impossible size");
    record.entry.size = size;
    TRY(output.Send(RecordKind::kFile, Encode(record)));
    if (HasInlineData()) {
      ASSIGN_OR_RETURN(std::string bytes, InlineData(path, number));
      if (bytes.size() < size) return Damaged(path, "inline data that is too short");
      TRY(output.SendBytes(std::string_view(bytes).substr(0, static_cast<size_t>(size))));
    } else {
      std::vector<Extent> extents;
      const auto flush = [&]() -> Status {
        if (extents.empty()) return {};
        TRY(output.Send(RecordKind::kExtents, Encode(extents)));
        extents.clear();
        return {};
      };
      TRY(ForEachExtent(path, number, [&](const Extent& extent) -> Status {
        if (extent.logical >= size) return {};
        extents.push_back(extent);
        return extents.size() < kMaxExtentsInRecord ? Status{} : flush();
      }));
      TRY(flush());
    }
    return output.Send(RecordKind::kEndFile, {});
  }

  // The inode that was read is a directory: itself, and its names.
  Result<std::vector<Named>> EnterDirectory(const std::string& path, ext2_ino_t number, bool hidden,
                                            ReaderOutput& output) {
    if (!directories.insert(number).second) return Damaged(path, "a directory with two names");
    EntryRecord record;
    record.path = path;
    TRY(FillEntry(path, record.entry));
    FillFacts(number, record);
    ASSIGN_OR_RETURN(record.xattrs, ReadXattrs(path, number));
    TRY(output.Send(RecordKind::kEntry, Encode(record)));
    if (hidden) return std::vector<Named>{};
    return List(path, number);
  }
};

ExtFilesystem::ExtFilesystem(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ExtFilesystem::~ExtFilesystem() = default;

DiskFilesystem::Summary ExtFilesystem::Examine(const DiskWindow& window) {
  Summary summary;
  ext2_super_block super;
  static_assert(sizeof super == kSuperblockBytes);
  if (!window.ReadAt(kSuperblockOffset, reinterpret_cast<char*>(&super), sizeof super) ||
      super.s_magic != EXT2_SUPER_MAGIC || super.s_log_block_size > 6) {
    summary.obstacle = "its superblock is damaged";
    return summary;
  }
  const uint64_t block_bytes = uint64_t{1024} << super.s_log_block_size;
  const bool wide = (super.s_feature_incompat & EXT4_FEATURE_INCOMPAT_64BIT) != 0;
  const uint64_t blocks = super.s_blocks_count | (wide ? uint64_t{super.s_blocks_count_hi} << 32 : 0);
  const uint64_t free_blocks = super.s_free_blocks_count | (wide ? uint64_t{super.s_free_blocks_hi} << 32 : 0);
  if (blocks > window.size() / block_bytes) {
    summary.obstacle =
        fmt::format("it has {} blocks of {} bytes and its partition only {} bytes", blocks, block_bytes, window.size());
    return summary;
  }
  summary.used_bytes = free_blocks < blocks ? (blocks - free_blocks) * block_bytes : 0;
  summary.made_sec = super.s_mkfs_time | static_cast<int64_t>(super.s_mkfs_time_hi) << 32;
  const uint32_t incompatible = super.s_feature_incompat & ~kKnownIncompatible;
  const uint32_t read_only = super.s_feature_ro_compat & ~kKnownReadOnlyCompatible;
  if (super.s_rev_level > EXT2_DYNAMIC_REV) {
    summary.obstacle = "it is of an unknown revision";
  } else if ((incompatible & EXT3_FEATURE_INCOMPAT_RECOVER) != 0) {
    summary.obstacle = "its journal needs recovery; the disk was not unmounted";
  } else if ((incompatible & EXT4_FEATURE_INCOMPAT_ENCRYPT) != 0) {
    summary.obstacle = "it has encrypted directories";
  } else if (incompatible != 0 || read_only != 0) {
    summary.obstacle =
        fmt::format("it has features that the direct reader does not know ({:#x}, {:#x})", incompatible, read_only);
  } else if ((super.s_state & EXT2_ERROR_FS) != 0 || (super.s_state & EXT2_VALID_FS) == 0) {
    summary.obstacle = "it was not unmounted cleanly, or has errors";
  }
  return summary;
}

Result<std::unique_ptr<DiskFilesystem>> ExtFilesystem::Open(const DiskWindow& window) {
  if (const Summary summary = Examine(window); !summary.obstacle.empty()) {
    return Fail(EOPNOTSUPP, "{}", summary.obstacle);
  }
  initialize_ext2_error_table();
  auto impl = std::make_unique<Impl>(window);
  g_window = &window;
  if (const errcode_t code =
          ext2fs_open2("disk", nullptr, EXT2_FLAG_64BITS | EXT2_FLAG_SKIP_MMP, 0, 0, &g_manager, &impl->fs);
      code != 0) {
    impl->fs = nullptr;
    return Damaged("", code);
  }
  const auto inode_bytes = static_cast<size_t>(EXT2_INODE_SIZE(impl->fs->super));
  impl->inode_bytes.resize(std::max(inode_bytes, sizeof(ext2_inode_large)));
  impl->inode_bytes.resize(
      inode_bytes);  // the capacity holds a large one, whose fields are looked at if they are there
  return std::unique_ptr<DiskFilesystem>(new ExtFilesystem(std::move(impl)));
}

Status ExtFilesystem::Walk(const std::vector<std::string>& hidden, ReaderOutput& output) {
  struct Frame {
    std::string path;
    std::vector<Named> subdirectories;
    size_t next = 0;
  };
  std::vector<Frame> stack;
  // Files first, then one directory after the other: neighbours in a directory become neighbours in the packs.
  const auto enter = [&](const std::string& path, ext2_ino_t number) -> Status {
    const bool is_hidden = !path.empty() && std::find(hidden.begin(), hidden.end(), path) != hidden.end();
    ASSIGN_OR_RETURN(std::vector<Named> names, impl_->EnterDirectory(path, number, is_hidden, output));
    Frame frame;
    frame.path = path;
    for (Named& child : names) {
      const std::string below = path.empty() ? child.name : path + "/" + child.name;
      if (below.size() > kMaxPathBytes) return Damaged(path, "its directories are too deep");
      TRY(impl_->ReadInode(below, child.inode));
      if (LINUX_S_ISDIR(impl_->inode().i_mode)) {
        frame.subdirectories.push_back(std::move(child));
      } else {
        TRY(impl_->SendFile(below, child.inode, output));
      }
    }
    stack.push_back(std::move(frame));
    return {};
  };
  TRY(impl_->ReadInode("", EXT2_ROOT_INO));
  if (!LINUX_S_ISDIR(impl_->inode().i_mode)) return Damaged("", "its root is no directory");
  TRY(enter("", EXT2_ROOT_INO));
  while (!stack.empty()) {
    Frame& top = stack.back();
    if (top.next == top.subdirectories.size()) {
      stack.pop_back();
      continue;
    }
    const Named& child = top.subdirectories[top.next++];
    const std::string path = top.path.empty() ? child.name : top.path + "/" + child.name;
    const ext2_ino_t number = child.inode;
    TRY(impl_->ReadInode(path, number));
    TRY(enter(path, number));
  }
  return {};
}

Status ExtFilesystem::LookUp(const std::string& path, bool follow, uint64_t limit, ReaderOutput& output) {
  LookupRecord record{path, 0};
  ASSIGN_OR_RETURN(const ext2_ino_t number, impl_->Resolve(path, follow));
  if (number == 0) return output.Send(RecordKind::kLookup, Encode(record));
  TRY(impl_->ReadInode(path, number));
  Entry entry;
  TRY(impl_->FillEntry(path, entry));
  record.type = static_cast<uint8_t>(entry.type);
  TRY(output.Send(RecordKind::kLookup, Encode(record)));
  if (!follow || entry.type != FileType::kRegular) return {};
  impl_->data_bytes = 0;
  ASSIGN_OR_RETURN(const std::string bytes,
                   impl_->ReadBytes(path, number, std::min<uint64_t>(limit, EXT2_I_SIZE(impl_->small_inode()))));
  TRY(output.SendBytes(bytes));
  return output.Send(RecordKind::kEndFile, {});
}

}  // namespace mirage
