-- Orthanc: route every CT series to the virtual scanner once it is stable.
-- The modality "twin-scanner" is named in orthanc.json. Only CT leaves: the synthetic PET that comes back is never
-- routed again, and the scanner drops its own objects besides.

local TARGET = 'twin-scanner'

function OnStableSeries(seriesId, tags, metadata)
  if tags['Modality'] ~= 'CT' then
    return
  end
  -- A job of Orthanc's own queue: it is kept across restarts and shows in the jobs list.
  local body = { Resources = { seriesId }, Asynchronous = true, Permissive = false }
  local answer = RestApiPost('/modalities/' .. TARGET .. '/store', DumpJson(body, true))
  print('twin-scanner: routing CT series ' .. seriesId .. ': ' .. tostring(answer))
end
