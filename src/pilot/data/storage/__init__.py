"""Where the bytes of data sets lie, and what is kept of them on this machine.

| what | holds | used by |
|---|---|---|
| `folder.DatasetFolder` | the files of a set on this machine | every reader |
| `streaming.StreamedFolder`, also a `DatasetFolder` | the files of a set elsewhere | every reader, unawares |
| `remote.RemoteFolder` | what a hub or a store has | `fetch` (whole folders), `StreamedFolder` |
| `column_cache` | columns of a large set, mapped into memory | `EpisodeDataset` |
| `frame_cache.FrameCache`, a `PictureSource` | every picture, decoded, on disk | `EpisodeDataset.frames` |
| `loading.windows.WindowCache`, a `PictureSource` | pictures of a few windows, in memory | `EpisodeDataset.frames` |

`files` writes what is whole or absent.
"""
