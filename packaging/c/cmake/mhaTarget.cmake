# mha::mha: the header and the archive for what is compiled for.
if(TARGET mha::mha)
  return()
endif()
include("${CMAKE_CURRENT_LIST_DIR}/mhaArchive.cmake")
mha_archive(mha_name)
get_filename_component(mha_root "${CMAKE_CURRENT_LIST_DIR}/.." ABSOLUTE)
if(NOT EXISTS "${mha_root}/lib/${mha_name}/libmha.a")
  message(FATAL_ERROR "mha: there is no ${mha_root}/lib/${mha_name}/libmha.a")
endif()
add_library(mha::mha STATIC IMPORTED GLOBAL)
set_target_properties(mha::mha PROPERTIES
  IMPORTED_LOCATION "${mha_root}/lib/${mha_name}/libmha.a"
  INTERFACE_INCLUDE_DIRECTORIES "${mha_root}/include")
message(STATUS "mha: ${mha_name}")
