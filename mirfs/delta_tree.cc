#include "mirfs/delta_tree.h"

#include <vector>

namespace mirage {
namespace {

// What only looks deeper: two directories that differ.
bool BothDirectories(const std::optional<Entry>& first, const Entry& second) {
  return first && first->is_directory() && second.is_directory();
}

bool Belongs(DeltaPart part, const std::optional<Entry>& first, const Entry& second) {
  const bool replaced = !first || first->type != second.type;
  return part == DeltaPart::kAdded ? replaced : !replaced && !second.is_directory() && *first != second;
}

// Calls visit(name, first's, second's) for names the second tree has and the first has not just so; false ends it.
using VisitPair = std::function<Result<bool>(std::string_view, const std::optional<Entry>&, const Entry&)>;
Status VisitPairs(const TreeReader& reader, const ObjectId& first, const ObjectId& second, const VisitPair& visit) {
  bool enough = false;
  Status status = reader.trees().Difference(
      first, second,
      [&](std::string_view name, std::optional<std::string_view> left,
          std::optional<std::string_view> right) -> Status {
        if (!right) return {};
        std::optional<Entry> before;
        if (left) {
          ASSIGN_OR_RETURN(before, DecodeEntry(*left));
        }
        ASSIGN_OR_RETURN(const Entry after, DecodeEntry(*right));
        ASSIGN_OR_RETURN(const bool more, visit(name, before, after));
        enough = !more;
        return more ? Status() : Fail(ECANCELED, "enough");
      });
  if (enough) return {};
  return status;
}

}  // namespace

Result<bool> DeltaTree::HasAny(DeltaPart part, const ObjectId& first, const ObjectId& second) const {
  // A list of pairs to look into rather than recursion: the depth comes from the image.
  std::vector<std::pair<ObjectId, ObjectId>> pending{{first, second}};
  bool found = false;
  while (!found && !pending.empty()) {
    const auto [a, b] = pending.back();
    pending.pop_back();
    TRY(VisitPairs(reader_, a, b,
                   [&](std::string_view, const std::optional<Entry>& before, const Entry& after) -> Result<bool> {
                     found = Belongs(part, before, after);
                     if (!found && BothDirectories(before, after) && before->id != after.id) {
                       pending.emplace_back(before->id, after.id);
                     }
                     return !found;
                   }));
  }
  return found;
}

Result<std::optional<DeltaEntry>> DeltaTree::Classify(DeltaPart part, const std::optional<Entry>& first,
                                                      const Entry& second) const {
  if (Belongs(part, first, second)) return DeltaEntry{second, true, {}};
  if (!BothDirectories(first, second) || first->id == second.id) return std::nullopt;
  ASSIGN_OR_RETURN(const bool any, HasAny(part, first->id, second.id));
  if (!any) return std::nullopt;
  return DeltaEntry{second, false, first->id};
}

Status DeltaTree::Scan(DeltaPart part, const ObjectId& first, const ObjectId& second,
                       const std::function<bool(std::string_view name, const DeltaEntry&)>& visit) const {
  return VisitPairs(reader_, first, second,
                    [&](std::string_view name, const std::optional<Entry>& before, const Entry& after) -> Result<bool> {
                      ASSIGN_OR_RETURN(const auto delta, Classify(part, before, after));
                      return !delta || visit(name, *delta);
                    });
}

Result<std::optional<DeltaEntry>> DeltaTree::Lookup(DeltaPart part, const ObjectId& first, const ObjectId& second,
                                                    std::string_view name) const {
  ASSIGN_OR_RETURN(const auto after, reader_.Lookup(second, name));
  if (!after) return std::nullopt;
  ASSIGN_OR_RETURN(const auto before, reader_.Lookup(first, name));
  return Classify(part, before, *after);
}

}  // namespace mirage
