# find_package(mha) gives mha::mha: set mha_DIR or CMAKE_PREFIX_PATH to the folder that has include/, lib/
# and cmake/.
include("${CMAKE_CURRENT_LIST_DIR}/mhaTarget.cmake")
