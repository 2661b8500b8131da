// What an object names: the edges that a collection marks along and a publish checks.
#pragma once

#include <functional>
#include <string>

#include "store/object.h"

namespace mirage {

// kContent stands for a content, whichever way it is kept: its list if there is one, else the chunk of that id. kManifest is a
// parent, of which a version needs the manifest alone.
using VisitReference = std::function<Status(ObjectKind kind, const ObjectId& id)>;
// EIO: the encoding is not valid. A chunk names nothing.
Status VisitReferences(ObjectKind kind, const ObjectId& id, std::string encoding, const VisitReference& visit);

}  // namespace mirage
